#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

#include "report/expert_load.h"
#include "report/html_text.h"
#include "report/page/marks.h"
#include "report/page/sections.h"

namespace moerun {

namespace {

/// Where the levels of the heat map end, in even shares of a layer's tokens; the first is no token at all,
/// and the last has no end.
constexpr std::array<double, 6> kLevelEnds{0.25, 0.5, 1, 1.5, 2, 4};
constexpr size_t kNumLevels = kLevelEnds.size() + 2;
constexpr std::array<const char*, kNumLevels> kLevelNames{
    "no token", "below ¼ ×", "¼ to ½ ×", "½ to 1 ×", "1 to 1½ ×", "1½ to 2 ×", "2 to 4 ×", "4 × and more"};

size_t level_of(uint64_t tokens, double even_share) {
  if (tokens == 0 || even_share <= 0) return 0;
  const auto* const end =
      std::upper_bound(kLevelEnds.begin(), kLevelEnds.end(), static_cast<double>(tokens) / even_share);
  return 1 + static_cast<size_t>(end - kLevelEnds.begin());
}

/// Lines of one cell's height, a path a level: neighbours of one level are one line.
std::array<std::string, kNumLevels> heat_paths(const std::vector<std::vector<uint64_t>>& of_layer) {
  std::array<std::string, kNumLevels> paths;
  std::array<std::pair<int64_t, int64_t>, kNumLevels> at{};  // where each path's pen is
  for (size_t layer = 0; layer < of_layer.size(); ++layer) {
    const std::vector<uint64_t>& tokens = of_layer[layer];
    const double even_share =
        static_cast<double>(std::accumulate(tokens.begin(), tokens.end(), uint64_t{0})) /
        static_cast<double>(tokens.size());
    for (size_t begin = 0, end = 0; begin < tokens.size(); begin = end) {
      const size_t level = level_of(tokens[begin], even_share);
      for (end = begin; end < tokens.size() && level_of(tokens[end], even_share) == level;) ++end;
      const auto x = static_cast<int64_t>(begin), y = static_cast<int64_t>(layer);
      auto& [pen_x, pen_y] = at[level];
      // A path that begins with a small m begins at 0, 0.
      paths[level] += fmt::format("m{} {}h{}", x - pen_x, y - pen_y, end - begin);
      pen_x = static_cast<int64_t>(end);
      pen_y = y;
    }
  }
  return paths;
}

Labels from_above(Labels labels) {
  for (auto& label : labels) label.first = 1 - label.first;
  return labels;
}

/// Bars to the right, a layer a bar, from 0.
std::string layer_bars(const std::vector<double>& values, const std::string& height, double most) {
  const double each = kPlotHeight / static_cast<double>(values.size());
  std::string path;
  for (size_t i = 0; i < values.size(); ++i)
    path += fmt::format("M0 {:.2f}h{:.1f}v{:.2f}H0z", each * (static_cast<double>(i) + 0.1),
                        kPlotWidth * values[i] / most, each * 0.8);
  return "<div class=\"beside\">" +
         plot(height, fmt::format("<path class=\"f0\" d=\"{}\"/><path class=\"mark\" d=\"M{:.1f} 0V{}\"/>",
                                  path, kPlotWidth / most, kPlotHeight)) +
         "</div>";
}

/// Tokens by an index, as steps.
std::string tokens_figure(const std::string& title, const std::string& more,
                          const std::vector<uint64_t>& tokens) {
  std::vector<double> x, values(tokens.begin(), tokens.end());
  for (size_t i = 0; i <= tokens.size(); ++i)
    x.push_back(kPlotWidth * static_cast<double>(i) / static_cast<double>(tokens.size()));
  const Axis axis = axis_up_to(*std::max_element(values.begin(), values.end()));
  Labels labels;
  for (const double tick : axis.ticks) labels.emplace_back(tick / axis.end(), short_number(tick));
  return fmt::format("<h3>{}<span>{}</span></h3>{}{}{}\n", title, more, y_labels(labels),
                     plot("6rem", grid_lines(axis) + fmt::format("<path class=\"f0 flat\" d=\"{}\"/>",
                                                                 steps_path(x, values, axis.end(), true))),
                     x_labels(index_labels(tokens.size(), 12)));
}

/// The map, on its right the layers' ranks where there are several, and below it the experts' sums.
std::string heat_map(const ExpertLoad& load, bool ranks_differ) {
  const size_t layers = load.of_layer.size(), experts = load.of_expert.size();
  std::string cells;
  const auto paths = heat_paths(load.of_layer);
  for (size_t level = 0; level < kNumLevels; ++level)
    if (!paths[level].empty()) cells += fmt::format("<path class=\"h{}\" d=\"{}\"/>", level, paths[level]);
  // A line of text a layer where they are few; no taller than a screen where they are many.
  const std::string height =
      fmt::format("{:.2f}rem", std::clamp(static_cast<double>(layers) * 0.32,
                                          std::min(1.3 * static_cast<double>(layers), 10.0), 32.0));
  std::string out = fmt::format("<div class=\"heat{}\">", ranks_differ ? " wide" : "");
  out += y_labels(from_above(index_labels(layers, layers < 8 ? 8 : 12)));
  out += fmt::format(
      "<div class=\"plot cells\" style=\"height:{}\"><svg viewBox=\"0 -0.5 {} {}\" "
      "preserveAspectRatio=\"none\" "
      "aria-hidden=\"true\">{}</svg></div>",
      height, experts, layers, cells);
  const double most = axis_up_to(std::max(load.worst_layer(), 1.0)).end();
  if (ranks_differ) out += layer_bars(load.max_over_mean_of_layer, height, most);
  out += x_labels(index_labels(experts, 12));
  if (ranks_differ) out += x_labels({{0, "0"}, {1, fmt::format("{:g} ×", most)}}, " beside");
  return out + tokens_figure("tokens by expert", "over all layers", load.of_expert) + "</div>\n";
}

}  // namespace

std::string experts_section(const JobReport& report) {
  const ExpertLoad load = expert_load(report, LoadPeriod::all);
  if (load.max_over_mean == 0) return "";
  const bool ranks_differ = report.ranks.size() > 1;
  std::string out =
      "<h2>Expert load</h2>\n<p>Tokens of each expert (across) of each layer (down), in even shares of "
      "the layer’s tokens: at 1 × all of its experts have as many.";
  if (ranks_differ)
    out += fmt::format(
        " On the right the busiest rank of each layer against the mean of the ranks (dashed: 1 ×); the worst "
        "layer has {:.2f} ×, "
        "all layers together {:.2f} ×.",
        load.worst_layer(), load.max_over_mean);
  out += "</p>\n";
  if (report.job->parallel.redundant_experts > 0)
    out += "<p>Redundant experts: " + placement_sentence(report) + ".</p>\n";
  std::vector<std::pair<std::string, std::string>> names;
  for (size_t level = 0; level < kNumLevels; ++level)
    names.emplace_back(fmt::format("h{}", level), kLevelNames[level]);
  out += legend(names) + heat_map(load, ranks_differ);
  if (ranks_differ)
    out += "<div class=\"heat wide\">" +
           tokens_figure("tokens by rank", "given to the experts of the rank", load.of_rank) + "</div>\n";
  return out;
}

}  // namespace moerun
