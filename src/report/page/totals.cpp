#include <fmt/format.h>

#include <vector>

#include "report/expert_load.h"
#include "report/html_text.h"
#include "report/page/marks.h"
#include "report/page/sections.h"
#include "report/progress_line.h"
#include "report/times.h"

namespace moerun {

namespace {

struct Tile {
  std::string name, value, more;
};

std::string state_line(const JobReport& report) {
  const JobOutcome& outcome = report.outcome;
  const auto line = [](const char* kind, const std::string& text) {
    return fmt::format("<p class=\"state {}\">{}</p>\n", kind, escaped(text));
  };
  if (!outcome.complete)
    return line("bad", fmt::format("Stopped by {}: {} rows are left, and the same command goes on with them. "
                                   "Exit code {}.",
                                   outcome.stop.why,
                                   with_commas(outcome.progress.num_rows - outcome.progress.num_answered),
                                   report.exit_code));
  if (outcome.row_errors > 0)
    return line("bad", fmt::format("Complete; {} of the rows have an error. Exit code {}.",
                                   with_commas(outcome.row_errors), report.exit_code));
  return line("good", fmt::format("Complete. Exit code {}.", report.exit_code));
}

std::vector<Tile> tiles_of(const JobReport& report) {
  const JobProgress& progress = report.outcome.progress;
  const JobTimes times = job_times(report);
  const auto rate = [&](uint64_t count) { return number_text(per_second(count, progress.seconds)); };
  const uint64_t earlier = progress.num_answered - progress.answered_now;
  return {
      {"Rows answered", with_commas(progress.num_answered),
       fmt::format("of {}{}", with_commas(progress.num_rows),
                   earlier > 0 ? fmt::format(", {} by earlier runs", with_commas(earlier)) : "")},
      {"Output tokens/s", rate(progress.output_tokens),
       fmt::format("{} with prompt tokens", rate(progress.tokens()))},
      {"Output tokens", large_number(progress.output_tokens),
       fmt::format("{} prompt tokens", large_number(progress.prompt_tokens))},
      {"Rows/s", rate(progress.answered_now),
       fmt::format("{} rows with an error", with_commas(progress.row_errors))},
      {"Time", duration_text(report.total_s),
       fmt::format("{} of it with rows in work", duration_text(progress.seconds))},
      {"Ranks", std::to_string(report.ranks.size()), fmt::format("loaded in {}", duration_text(times.load))}};
}

}  // namespace

std::string totals_section(const JobReport& report) {
  const JobProgress& progress = report.outcome.progress;
  const auto ranks = static_cast<double>(report.ranks.size());
  std::string out = state_line(report) + "<dl class=\"tiles\">";
  for (const Tile& tile : tiles_of(report))
    out += fmt::format("<div><dt>{}</dt><dd class=\"value\">{}</dd><dd class=\"more\">{}</dd></div>\n",
                       tile.name, tile.value, escaped(tile.more));
  out += "</dl>\n<dl class=\"facts\">";
  const std::pair<const char*, std::string> facts[] = {
      {"model", report.job->model.path},
      {"layout", report.layout},
      {"formats", report.formats},
      {"expert exchange",
       report.ranks.front().all_to_all_why.empty()
           ? report.ranks.front().all_to_all
           : fmt::format("{}: {}", report.ranks.front().all_to_all, report.ranks.front().all_to_all_why)},
      {"steady", steady_text(progress)},
      {"a rank", fmt::format("{} output tokens/s, {} with prompt tokens",
                             number_text(per_second(progress.output_tokens, progress.seconds) / ranks),
                             number_text(per_second(progress.tokens(), progress.seconds) / ranks))},
      {"ran", fmt::format("{} to {}", report.started, report.ended)}};
  for (const auto& [name, text] : facts) out += fmt::format("<dt>{}</dt><dd>{}</dd>\n", name, escaped(text));
  return out + "</dl>\n";
}

}  // namespace moerun
