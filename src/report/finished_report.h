#pragma once
#include <string>

#include "io/result_hdf5.h"

namespace moerun {

// The report of a job whose last run died between naming its output and writing its report: what the output
// says of itself, with the keys of report_json. What the run measured is not in it.

std::string finished_report_json(const FinishedOutput& output);
std::string finished_report_html(const FinishedOutput& output);

}  // namespace moerun
