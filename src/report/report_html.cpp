#include "report/report_html.h"

#include <fmt/format.h>

#include "base/version.h"
#include "report/page/frame.h"
#include "report/page/sections.h"

namespace moerun {

std::string report_html(const JobReport& report) {
  std::string out = page_begin(report.job->output.path);
  for (const auto section :
       {totals_section, series_section, times_section, experts_section, ranks_section, settings_section})
    out += section(report);
  return out + page_end(fmt::format("moerun {} ({})", version(), git_revision()));
}

}  // namespace moerun
