#pragma once
#include <string>

#include "report/report.h"

namespace moerun {

// The parts of the report's page, from above to below; each is empty where there is nothing to show. The
// page has no script: figures are SVG, their labels HTML, so that letters keep their size at any width.

std::string totals_section(const JobReport& report);
/// Tokens a second, sequences, keys and values over the job's time, earlier runs included.
std::string series_section(const JobReport& report);
/// The job's time, and where each rank's went over the time of this run.
std::string times_section(const JobReport& report);
/// Tokens of each expert of each layer.
std::string experts_section(const JobReport& report);
/// Ranks, their keys and values, and who holds their GPUs.
std::string ranks_section(const JobReport& report);
std::string settings_section(const JobReport& report);

}  // namespace moerun
