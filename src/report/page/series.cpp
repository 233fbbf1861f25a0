#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/time_text.h"
#include "report/html_text.h"
#include "report/page/marks.h"
#include "report/page/sections.h"
#include "report/progress_line.h"
#include "report/series_json.h"

namespace moerun {

namespace {

/// What the panels share: where bins begin, and where a run ended and the next one began.
struct TimeAxis {
  explicit TimeAxis(const JobSeries& series) : end_s(series.sums.end_s()) {
    for (size_t bin = 0; bin < series.sums.num_bins(); ++bin)
      x.push_back(kPlotWidth * series.sums.bin_s() * static_cast<double>(bin) / end_s);
    x.push_back(kPlotWidth);
    for (size_t run = 1; run < series.runs.size(); ++run)
      marks += fmt::format("M{:.5g} 0V{}", kPlotWidth * series.runs[run].begin_s / end_s, kPlotHeight);
  }
  double end_s;
  std::vector<double> x;  // [bins + 1]
  std::string marks;
};

/// One quantity over time: a second's, or the mean of a bin's.
struct Curve {
  std::string name;  ///< empty: the panel's
  std::vector<double> values;
};

std::vector<double> means(const JobSeries& series, JobSeries::Column column) {
  std::vector<double> values = series.sums.column(column);
  for (size_t bin = 0; bin < values.size(); ++bin) values[bin] /= std::max(series.sums.length_s(bin), 1e-9);
  return values;
}

double greatest(const std::vector<Curve>& curves) {
  double most = 0;
  for (const Curve& curve : curves)
    for (const double value : curve.values) most = std::max(most, value);
  return most;
}

struct Panel {
  std::string title, more, height;
  std::vector<Curve> curves;
  const char* unit = "";
};

std::string panel_html(const Panel& panel, const TimeAxis& time) {
  const Axis axis = axis_up_to(greatest(panel.curves));
  std::string inner = grid_lines(axis), heading = escaped(panel.title);
  for (size_t i = 0; i < panel.curves.size(); ++i) {
    const Curve& curve = panel.curves[i];
    inner += fmt::format("<path class=\"area f{}\" d=\"{}\"/><path class=\"curve l{}\" d=\"{}\"/>", i,
                         steps_path(time.x, curve.values, axis.end(), true), i,
                         steps_path(time.x, curve.values, axis.end(), false));
    if (!curve.name.empty()) heading += fmt::format("<i class=\"f{}\"></i>{}", i, escaped(curve.name));
  }
  if (!time.marks.empty()) inner += "<path class=\"mark\" d=\"" + time.marks + "\"/>";
  Labels labels;
  for (const double tick : axis.ticks)
    labels.emplace_back(tick / axis.end(), short_number(tick) + panel.unit);
  return fmt::format("<div class=\"panel\"><h3>{}<span>{}</span></h3>{}{}</div>\n", heading,
                     escaped(panel.more), y_labels(labels), plot(panel.height, inner));
}

/// What the pointer shows of each bin.
std::string readouts(const JobSeries& series, const TimeAxis& time, const std::vector<Panel>& panels) {
  std::string out = "<div class=\"bins\" aria-hidden=\"true\">";
  for (size_t bin = 0; bin < series.sums.num_bins(); ++bin) {
    std::string text = duration_text(series.sums.bin_s() * static_cast<double>(bin));
    for (const Panel& panel : panels)
      for (const Curve& curve : panel.curves)
        text += fmt::format(" · {}{} {}", number_text(curve.values[bin]), panel.unit,
                            curve.name.empty() ? panel.title : curve.name);
    out += fmt::format("<div style=\"left:{:.2f}%;width:{:.2f}%\"><span>{}</span></div>", time.x[bin] / 10,
                       (time.x[bin + 1] - time.x[bin]) / 10, escaped(text));
  }
  return out + "</div>\n";
}

/// Where earlier runs of the job ended.
std::string runs_text(const JobSeries& series) {
  if (series.runs.size() < 2) return "";
  constexpr size_t kShown = 8;
  const size_t marks = series.runs.size() - 1;
  std::string out = fmt::format("<p>Dashed: {} of the job ended there, and the next one went on:",
                                marks == 1 ? "a run" : fmt::format("{} runs", marks));
  for (size_t run = 0; run < marks; ++run) {
    if (marks > kShown && run == kShown / 2) {
      out += " …";
      run = marks - kShown / 2;
    }
    const JobSeries::Run &ended = series.runs[run], &next = series.runs[run + 1];
    out += fmt::format(
        " at {} with {} rows answered (<span class=\"nw\">{}</span>, and on <span class=\"nw\">{}</span>){}",
        duration_text(ended.end_s), with_commas(ended.answered), time_text_of(ended.ended),
        time_text_of(next.began), run + 1 < marks ? ";" : ".");
  }
  return out + "</p>\n";
}

}  // namespace

std::string series_section(const JobReport& report) {
  const JobProgress& progress = report.outcome.progress;
  const JobSeries& series = progress.series;
  if (series.sums.num_bins() == 0) return "";
  const TimeAxis time(series);
  const auto rate_panel = [&](const char* title, const char* height, JobSeries::Column column) {
    Panel panel{.title = title, .height = height, .curves = {{.values = means(series, column)}}};
    panel.more = fmt::format("at most {}", number_text(greatest(panel.curves)));
    return panel;
  };
  std::vector<double> in_use = means(series, JobSeries::blocks_used);
  for (double& blocks : in_use) blocks *= 100 / std::max(static_cast<double>(progress.num_blocks), 1.0);
  const std::vector<Panel> panels{
      rate_panel("output tokens/s", "9rem", JobSeries::output_tokens),
      rate_panel("prompt tokens/s", "6rem", JobSeries::prompt_tokens),
      {.title = "sequences",
       .height = "6rem",
       .curves = {{"running", means(series, JobSeries::running)},
                  {"waiting at the leaders", means(series, JobSeries::waiting)}}},
      {.title = "blocks of keys and values in use",
       .more =
           fmt::format("of {}, each for {} tokens", with_commas(static_cast<uint64_t>(progress.num_blocks)),
                       report.job->memory.block_size),
       .height = "6rem",
       .curves = {{.values = in_use}},
       .unit = "%"}};
  std::string out = fmt::format(
      "<h2>Over time</h2>\n<p>Each step is {} of the job, with rows in work. What a leader reported at once "
      "is "
      "spread over the time since its report before.</p>\n{}<p class=\"hint\">Point at a step to read its "
      "numbers.</p>\n<div class=\"figure\">",
      duration_text(series.sums.bin_s()), runs_text(series));
  for (const Panel& panel : panels) out += panel_html(panel, time);
  return out + "<div class=\"panel\" style=\"margin:0\">" + x_labels(time_labels(time.end_s)) + "</div>\n" +
         readouts(series, time, panels) + "</div>\n";
}

}  // namespace moerun
