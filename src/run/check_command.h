#pragma once
#include <string>

#include "run/start_up.h"

namespace moerun {

/// `moerun check`: every check that needs no GPU, then what would run, on stdout: layout, memory a rank,
/// key/value room, what the exchange moves. `num_ranks` 0: as many as the job's layout names.
/// `measured_path`: a file with measurements of the exchange to print beside it (read_measured_exchange);
/// empty: none. Returns the exit code; throws BadInput with all faults.
int check_main(const RunOptions& options, int num_ranks, const std::string& measured_path);

}  // namespace moerun
