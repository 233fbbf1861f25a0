#pragma once
#include <string>

#include "run/start_up.h"

namespace moerun {

/// What the command line says to `moerun check`.
struct CheckOptions {
  int num_ranks = 0;          ///< as if so many were started; 0: as many as the job's layout names
  std::string gpu;            ///< whose memory is planned for: a name or a number of GiB; empty: the default
  std::string measured_path;  ///< of measurements of the exchange to print beside it; empty: none
};

/// `moerun check`: every check that needs no GPU, then what would run, on stdout: layout, memory a rank,
/// key/value room, what the exchange moves. Neither CUDA nor MPI is touched. Returns the exit code; throws
/// BadInput with all faults.
int check_main(const RunOptions& options, const CheckOptions& check);

}  // namespace moerun
