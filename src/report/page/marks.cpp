#include "report/page/marks.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "report/html_text.h"
#include "report/progress_line.h"

namespace moerun {

std::string number_text(double value) {
  if (value >= 99.95 || value == std::floor(value))
    return with_commas(static_cast<uint64_t>(std::llround(std::max(value, 0.0))));
  return fmt::format("{:.3g}", value);
}

std::string large_number(uint64_t value) {
  constexpr uint64_t kMillion = 1'000'000;
  return value < 100 * kMillion ? with_commas(value)
                                : with_commas((value + kMillion / 2) / kMillion) + " million";
}

std::string short_number(double value) {
  constexpr std::pair<double, const char*> kUnits[] = {{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}};
  for (const auto& [size, unit] : kUnits)
    if (value >= size) return fmt::format("{:.3g}{}", value / size, unit);
  return fmt::format("{:.3g}", value);
}

std::string percent_text(double share) {
  if (share > 0 && share < 0.001) return "<0.1%";
  return share > 0 && share < 0.0995 ? fmt::format("{:.1f}%", 100 * share)
                                     : fmt::format("{:.0f}%", 100 * share);
}

std::string duration_text(double seconds) {
  if (seconds < 99.95) return fmt::format("{:.1f} s", seconds);
  return clock_text(seconds) + (seconds < 3599.5 ? " min" : " h");
}

Axis axis_up_to(double most) {
  if (most <= 0 || !std::isfinite(most)) return {{0, 1}};
  const double decade = std::pow(10.0, std::floor(std::log10(most / 3)));
  const double rough = most / 3 / decade;
  const double step = decade * (rough <= 1 ? 1 : rough <= 2 ? 2 : rough <= 5 ? 5 : 10);
  Axis axis;
  for (int i = 0; axis.ticks.empty() || axis.ticks.back() < most; ++i) axis.ticks.push_back(step * i);
  return axis;
}

Labels time_labels(double end_s) {
  constexpr double kSteps[] = {0.1, 0.2, 0.5, 1,   2,    5,    10,   15,    30,    60,
                               120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200};
  double step = 86400;
  while (end_s / step > 8) step *= 2;
  for (const double candidate : kSteps)
    if (end_s / candidate <= 8) {
      step = candidate;
      break;
    }
  const auto [unit_s, unit] = step < 60     ? std::pair{1.0, "s"}
                              : step < 3600 ? std::pair{60.0, "min"}
                                            : std::pair{3600.0, "h"};
  Labels labels;
  for (int i = 0; step * i <= end_s * (1 + 1e-9); ++i)
    labels.emplace_back(end_s > 0 ? step * i / end_s : 0, fmt::format("{:g} {}", step * i / unit_s, unit));
  return labels;
}

Labels index_labels(size_t count, size_t most) {
  constexpr size_t kSteps[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000};
  size_t step = kSteps[0];
  for (const size_t candidate : kSteps) {
    step = candidate;
    if (count <= most * step) break;
  }
  Labels labels;
  for (size_t i = 0; i < count; i += step)
    labels.emplace_back((static_cast<double>(i) + 0.5) / static_cast<double>(count), std::to_string(i));
  return labels;
}

std::string y_labels(const Labels& labels) {
  std::string out = "<div class=\"y\">";
  for (const auto& [place, text] : labels)
    out += fmt::format("<span style=\"bottom:{:.2f}%\">{}</span>", 100 * place, escaped(text));
  return out + "</div>";
}

std::string x_labels(const Labels& labels, const char* classes) {
  std::string out = fmt::format("<div class=\"x{}\">", classes);
  for (const auto& [place, text] : labels) {
    const char* const edge = place < 0.02 ? " class=\"first\"" : place > 0.98 ? " class=\"last\"" : "";
    out += fmt::format("<span{} style=\"left:{:.2f}%\">{}</span>", edge, 100 * place, escaped(text));
  }
  return out + "</div>";
}

std::string plot(const std::string& height, const std::string& inner) {
  return fmt::format(
      "<div class=\"plot\" style=\"height:{}\"><svg viewBox=\"0 0 {} {}\" preserveAspectRatio=\"none\" "
      "aria-hidden=\"true\">{}</svg></div>",
      height, kPlotWidth, kPlotHeight, inner);
}

std::string grid_lines(const Axis& axis) {
  std::string path;
  for (const double tick : axis.ticks)
    if (tick > 0) path += fmt::format("M0 {:.2f}H{}", kPlotHeight * (1 - tick / axis.end()), kPlotWidth);
  return "<path class=\"grid\" d=\"" + path + "\"/>";
}

std::string steps_path(const std::vector<double>& x, const std::vector<double>& values, double most,
                       bool closed) {
  if (values.empty() || most <= 0) return "";
  std::string path;
  double before = -1;
  for (size_t i = 0; i < values.size(); ++i) {
    const double y = kPlotHeight * (1 - std::min(values[i] / most, 1.0));
    if (i == 0)
      path += closed ? fmt::format("M{:.4g} {}V{:.4g}", x[i], kPlotHeight, y)
                     : fmt::format("M{:.4g} {:.4g}", x[i], y);
    else if (std::abs(y - before) >= 0.01)
      path += fmt::format("H{:.4g}V{:.4g}", x[i], y);
    if (i == 0 || std::abs(y - before) >= 0.01) before = y;
  }
  path += fmt::format("H{:.4g}", x[values.size()]);
  return closed ? path + fmt::format("V{}Z", kPlotHeight) : path;
}

std::string legend(const std::vector<std::pair<std::string, std::string>>& class_and_text) {
  std::string out = "<ul class=\"key\">";
  for (const auto& [name, text] : class_and_text)
    out += fmt::format("<li><i class=\"{}\"></i>{}</li>", name, escaped(text));
  return out + "</ul>\n";
}

}  // namespace moerun
