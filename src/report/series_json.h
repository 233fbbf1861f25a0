#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "coordinator/job_series.h"

namespace moerun {

/// How a job went over time, as the reports and the run directory's status.json have it (docs/formats.md,
/// `series`): rates and means, a value a bin.
nlohmann::ordered_json series_json(const JobSeries& series);
/// What series_json wrote. Throws Error, or nlohmann's, where it is damaged.
JobSeries parse_series(const nlohmann::ordered_json& json);

/// Numbers of a bin with four digits: what a figure shows, without the noise of the fifth.
nlohmann::ordered_json short_numbers(const std::vector<double>& values);

/// JSON as dump(2) has it, but a list of numbers on one line.
std::string dump_with_lists(const nlohmann::ordered_json& json);

}  // namespace moerun
