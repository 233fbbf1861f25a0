#include "report/report_html.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/version.h"
#include "moerun/file_names.h"
#include "report/expert_load.h"
#include "report/html_text.h"
#include "report/progress_line.h"
#include "report/times.h"

namespace moerun {

namespace {

constexpr const char* kHead =
    R"(<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<style>
body { font: 15px/1.45 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222; background: #fff }
h1 { font-size: 1.4em } h2 { font-size: 1.05em; margin: 1.8em 0 .4em }
table { border-collapse: collapse } td, th { padding: .15em 1.2em .15em 0; text-align: left; font-variant-numeric: tabular-nums }
p { margin: .3em 0; color: #555 } svg { display: block; width: 100%; height: auto } svg text { font-size: 12px; fill: #333 }
.c0 { fill: #3b6ea8; color: #3b6ea8 } .c1 { fill: #d98a29; color: #d98a29 } .c2 { fill: #a9b0b8; color: #a9b0b8 }
.c3 { fill: #5b9a68; color: #5b9a68 } .c4 { fill: #8a6bb1; color: #8a6bb1 }
</style>
)";

/// One line of a bar chart: parts that follow one another, and what is written behind them.
struct Bar {
  std::string label;
  std::vector<double> parts;
  std::string figure;
};

/// Horizontal bars on one scale; `legend` names the parts.
std::string bars(const std::vector<Bar>& rows, const std::vector<std::string>& legend) {
  constexpr double kLeft = 90, kWidth = 520, kLine = 20;
  double longest = 0;
  for (const Bar& row : rows) {
    double length = 0;
    for (const double part : row.parts) length += part;
    longest = std::max(longest, length);
  }
  std::string out;
  if (!legend.empty()) {
    out += "<p>";
    for (size_t i = 0; i < legend.size(); ++i)
      out += fmt::format("<span class=\"c{}\">■</span> {} &#160; ", i, escaped(legend[i]));
    out += "</p>\n";
  }
  out += fmt::format("<svg viewBox=\"0 0 900 {}\" role=\"img\">\n",
                     kLine * static_cast<double>(rows.size()) + 4);
  for (size_t i = 0; i < rows.size(); ++i) {
    const double y = kLine * static_cast<double>(i);
    double x = kLeft;
    out += fmt::format("<text x=\"0\" y=\"{}\">{}</text>", y + 14, escaped(rows[i].label));
    for (size_t part = 0; part < rows[i].parts.size(); ++part) {
      const double width = longest > 0 ? kWidth * rows[i].parts[part] / longest : 0;
      out += fmt::format("<rect class=\"c{}\" x=\"{:.1f}\" y=\"{}\" width=\"{:.1f}\" height=\"15\"/>", part,
                         x, y + 2, width);
      x += width;
    }
    out += fmt::format("<text x=\"{:.1f}\" y=\"{}\">{}</text>\n", x + 6, y + 14, escaped(rows[i].figure));
  }
  return out + "</svg>\n";
}

/// One column a value, from 0 up to the greatest; `what` names a column, for the pointer that rests on it.
std::string columns(const std::vector<double>& values, const std::string& what) {
  constexpr double kWidth = 900, kHeight = 120;
  const double most = values.empty() ? 0 : *std::max_element(values.begin(), values.end());
  const double step = kWidth / static_cast<double>(std::max<size_t>(values.size(), 1));
  std::string out = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\">\n", kWidth, kHeight);
  for (size_t i = 0; i < values.size(); ++i) {
    const double height = most > 0 ? kHeight * values[i] / most : 0;
    out += fmt::format(
        "<rect class=\"c0\" x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.1f}\"><title>{} {}: "
        "{:.6g}</title></rect>\n",
        step * static_cast<double>(i), kHeight - height, std::max(step - 1, step * 0.8), height, what, i,
        values[i]);
  }
  return out + "</svg>\n";
}

std::string table(const std::vector<std::pair<std::string, std::string>>& rows) {
  std::string out = "<table>\n";
  for (const auto& [name, value] : rows)
    out += fmt::format("<tr><th>{}</th><td>{}</td></tr>\n", escaped(name), escaped(value));
  return out + "</table>\n";
}

std::string overview(const JobReport& report) {
  const JobProgress& progress = report.outcome.progress;
  const auto rate = [&](uint64_t count) {
    return with_commas(static_cast<uint64_t>(per_second(count, progress.seconds)));
  };
  const auto ranks = static_cast<double>(report.ranks.size());
  std::vector<std::pair<std::string, std::string>> rows{
      {"rows", fmt::format("{} of {} answered, {} in this run, {} with errors",
                           with_commas(progress.num_answered), with_commas(progress.num_rows),
                           with_commas(progress.answered_now), with_commas(progress.row_errors))},
      {"layout", report.layout},
      {"formats", report.formats},
      {"requests/s", fmt::format("{:.2f}", per_second(progress.answered_now, progress.seconds))},
      {"tokens/s",
       fmt::format("{} prompt + {} output = {}", rate(progress.prompt_tokens), rate(progress.output_tokens),
                   rate(progress.prompt_tokens + progress.output_tokens))},
      {"steady", steady_text(progress)},
      {"tokens/s a rank",
       fmt::format("{:.1f} output, {:.1f} in all",
                   per_second(progress.output_tokens, progress.seconds) / ranks,
                   per_second(progress.prompt_tokens + progress.output_tokens, progress.seconds) / ranks)},
      {"ran", fmt::format("{} to {}, exit code {}", report.started, report.ended, report.exit_code)}};
  if (!report.outcome.complete) rows.emplace_back("stopped by", report.outcome.stop.why);
  return table(rows);
}

std::string times_section(const JobReport& report) {
  const JobTimes times = job_times(report);
  const std::vector<double> parts{times.load, times.warm_up, times.steady, times.tail, times.merge};
  std::string out = "<h2>Time of the job</h2>\n";
  out += bars({{"", parts, fmt::format("{:.2f} s", fmt::join(parts, " + "))}},
              {"load", "warm-up", "steady", "tail", "merge"});
  const bool split = step_time(report).split;
  std::vector<Bar> steps;
  for (const RankReport& rank : report.ranks) {
    StepTime time;
    time.add(rank);
    std::vector<double> seconds{time.compute, time.waiting};
    if (split) seconds.insert(seconds.begin() + 1, {time.all_to_all, time.tensor});
    steps.push_back(
        {fmt::format("rank {}", rank.rank), seconds, fmt::format("{:.2f} s", fmt::join(seconds, " + "))});
  }
  out += "<h2>Time of the steps</h2>\n" +
         bars(steps,
              split ? std::vector<std::string>{"compute", "all-to-all", "tensor-parallel exchange", "waiting"}
                    : std::vector<std::string>{"model with its exchanges", "waiting"});
  return out;
}

std::string experts_section(const JobReport& report) {
  const ExpertLoad load = expert_load(report, LoadPeriod::all);
  if (load.max_over_mean == 0) return "";
  std::string out = fmt::format(
      "<h2>Expert load</h2>\n<p>Tokens given to the experts of each rank; the busiest has {:.2f} × the "
      "mean.</p>\n",
      load.max_over_mean);
  if (report.job->parallel.redundant_experts > 0)
    out += "<p>Redundant experts: " + placement_sentence(report) + ".</p>\n";
  std::vector<Bar> ranks;
  for (size_t i = 0; i < load.of_rank.size(); ++i)
    ranks.push_back({fmt::format("rank {}", report.ranks[i].rank),
                     {static_cast<double>(load.of_rank[i])},
                     with_commas(load.of_rank[i])});
  out += bars(ranks, {});
  out += fmt::format("<p>Busiest rank against the mean, by layer; the worst has {:.2f} ×.</p>\n",
                     load.worst_layer());
  out += columns(load.max_over_mean_of_layer, "layer");
  out += "<p>Tokens of each expert, over all layers.</p>\n";
  return out + columns({load.of_expert.begin(), load.of_expert.end()}, "expert");
}

std::string key_value_section(const JobReport& report) {
  std::vector<Bar> groups;
  for (const RankReport& rank : report.ranks)
    if (const EngineStats& engine = rank.engine; engine.num_blocks > 0)
      groups.push_back(
          {fmt::format("rank {}", rank.rank),
           {static_cast<double>(engine.max_blocks_used), 0,
            static_cast<double>(engine.num_blocks - engine.max_blocks_used)},
           fmt::format("{} of {} blocks, {} preemptions",
                       with_commas(static_cast<uint64_t>(engine.max_blocks_used)),
                       with_commas(static_cast<uint64_t>(engine.num_blocks)), engine.preemptions)});
  return "<h2>Key/value blocks used at most</h2>\n" + bars(groups, {});
}

std::string gpus_section(const JobReport& report) {
  if (!report.on_gpus()) return "";
  std::string out =
      "<h2>Processes that NVML sees on each GPU</h2>\n<table>\n<tr><th>rank</th><th>host</th><th>GPU</th>"
      "<th>process</th><th>memory</th></tr>\n";
  for (const RankReport& rank : report.ranks)
    for (const DeviceProcess& process : rank.processes)
      out += fmt::format("<tr><td>{}</td><td>{}</td><td>{} {}</td><td>{}{}</td><td>{}</td></tr>\n", rank.rank,
                         escaped(rank.host), escaped(rank.device), escaped(rank.device_uuid), process.pid,
                         process.pid == rank.pid ? " (this rank)" : "", mib_text(process.bytes));
  out +=
      "</table>\n<p>The coordinator holds no process and no memory on any GPU: it is a thread of rank "
      "0.</p>\n";
  for (const std::string& sentence : foreign_gpu_processes(report))
    out += "<p>" + escaped(sentence) + "</p>\n";
  return out;
}

}  // namespace

std::string report_html(const JobReport& report) {
  const std::string& title = report.job->output.path;
  return std::string(kReportHtmlBegin) + kHead +
         fmt::format("<title>{0}</title></head><body>\n<h1>{0}</h1>\n", escaped(title)) + overview(report) +
         times_section(report) + experts_section(report) + key_value_section(report) + gpus_section(report) +
         fmt::format("<p>moerun {} ({})</p>\n</body></html>\n", version(), git_revision());
}

}  // namespace moerun
