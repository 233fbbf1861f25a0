#pragma once
#include <string>

#include "report/report.h"

namespace moerun {

/// The report as a page for people: tables and bars (inline SVG), self-contained, without a script.
std::string report_html(const JobReport& report);

}  // namespace moerun
