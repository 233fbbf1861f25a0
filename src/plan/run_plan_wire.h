#pragma once
#include <string>

#include "plan/run_plan.h"

namespace moerun {

/// A plan on its way from rank 0 to the others: the job key by key, in the order of the one list of keys
/// (job/job_fields.h), as binary values. The configuration does not travel: a rank reads the folder, and
/// unpack_run_plan throws Error where it finds another one than rank 0 did.
std::string pack(const RunPlan& run);
RunPlan unpack_run_plan(const std::string& bytes);

/// The job alone. unpack_job throws Error for bytes that are no job of this program.
std::string pack_job(const Job& job);
Job unpack_job(const std::string& bytes);

}  // namespace moerun
