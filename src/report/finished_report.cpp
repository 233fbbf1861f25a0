#include "report/finished_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "moerun/error.h"
#include "moerun/file_names.h"
#include "report/html_text.h"
#include "report/page/frame.h"

namespace moerun {

namespace {

constexpr const char* kNote =
    "the run that finished this output ended before it could write its report: what it measured is not known";

}  // namespace

std::string finished_report_json(const FinishedOutput& output) {
  const ExitCode code = output.num_row_errors > 0 ? ExitCode::row_errors : ExitCode::ok;
  const nlohmann::ordered_json out{
      {"program", fmt::format("moerun {} ({})", output.program_version, output.git_revision)},
      {"started", output.start},
      {"ended", output.end},
      {"exit_code", static_cast<int>(code)},
      {"complete", true},
      {"stopped_by", ""},
      {"layout", output.layout},
      {"rows",
       {{"total", output.num_rows}, {"answered", output.num_rows}, {"errors", output.num_row_errors}}},
      {"note", kNote}};
  return out.dump(2) + "\n";
}

std::string finished_report_html(const FinishedOutput& output) {
  return page_begin("moerun") +
         fmt::format("<p>{} of {} rows answered, {} of them with errors; {} to {}; {}</p>\n<p>{}.</p>\n",
                     output.num_rows, output.num_rows, output.num_row_errors, escaped(output.start),
                     escaped(output.end), escaped(output.layout), kNote) +
         page_end(fmt::format("moerun {} ({})", output.program_version, output.git_revision));
}

}  // namespace moerun
