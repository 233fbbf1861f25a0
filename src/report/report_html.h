#pragma once
#include <string>

#include "report/report.h"

namespace moerun {

/// The report as a page for people: self-contained, light and dark, without a script (page/sections.h).
std::string report_html(const JobReport& report);

}  // namespace moerun
