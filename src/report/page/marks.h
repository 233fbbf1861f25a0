#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moerun {

// What the page's figures are drawn with. A plot is an SVG that is stretched to its place, with x from 0 to
// 1000 and y from 0 (above) to 100; labels are HTML beside it.

inline constexpr double kPlotWidth = 1000, kPlotHeight = 100;

/// 1234567 → "1,234,567"; below 100 with three digits: "1.23".
std::string number_text(double value);
/// The same, from 100 million on "2,790 million".
std::string large_number(uint64_t value);
/// For an axis: "1.5k", "20M".
std::string short_number(double value);
std::string percent_text(double share);
/// "12.3 s", "4:05 min", "1:02:03 h".
std::string duration_text(double seconds);

/// Round values from 0 on with equal distances, the last at or above `most`.
struct Axis {
  std::vector<double> ticks;
  double end() const { return ticks.back(); }
};
Axis axis_up_to(double most);

/// A label along an axis: its place from 0 to 1, and its text.
using Labels = std::vector<std::pair<double, std::string>>;
/// Times from 0 to `end_s` in one unit, a handful.
Labels time_labels(double end_s);
/// Whole numbers from 0 to `count` − 1 at the middles of as many equal parts.
Labels index_labels(size_t count, size_t most);

/// The labels of a y axis, which grows upwards, and of an x axis.
std::string y_labels(const Labels& labels);
std::string x_labels(const Labels& labels, const char* classes = "");
/// `height`: CSS.
std::string plot(const std::string& height, const std::string& inner);
/// Lines across a plot at the ticks.
std::string grid_lines(const Axis& axis);

/// The outline of equal or growing steps: `values[i]` from x[i] to x[i + 1], of `most` at the top. `closed`:
/// down to the axis, for an area.
std::string steps_path(const std::vector<double>& x, const std::vector<double>& values, double most,
                       bool closed);

/// Names of colours f0, f1, …, for people.
std::string legend(const std::vector<std::pair<std::string, std::string>>& class_and_text);

}  // namespace moerun
