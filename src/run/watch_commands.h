#pragma once
#include <string>

namespace moerun {

// For whoever watches a job from outside: neither starts MPI nor touches what the job owns.

/// `moerun status OUTPUT`: prints how the job stands whose output (or run directory) this is. Returns the
/// exit code: that of the finished job (0, 3), ExitCode::running while it runs, ExitCode::stopped where it
/// ended or died before it was finished. Throws BadInput where there is no such job.
int status_main(const std::string& output);

/// `moerun results OUTPUT.run`: writes the lines of all sealed answers to stdout, in row order.
int results_main(const std::string& output);

}  // namespace moerun
