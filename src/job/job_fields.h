#pragma once
#include <string>
#include <vector>

#include "job/fields.h"
#include "moerun/job.h"

namespace moerun {

/// Every key of a job but `input.random` and what is in it, in the order in which a job is written.
const std::vector<Field<Job>>& job_fields();

/// The keys of `input.random`, with their full names.
const std::vector<Field<RandomInput>>& random_input_fields();

}  // namespace moerun
