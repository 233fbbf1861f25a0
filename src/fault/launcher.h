#pragma once
#include <sys/types.h>

namespace moerun {

/// The process that started this one as a rank of a job: mpirun, its daemon on another node, Slurm's step
/// daemon. 0 for a rank that was started by hand, alone.
pid_t find_launcher(int world_size);

/// Ends the launcher if it is one of Open MPI's: those wait for ever for the daemon of a node that is gone,
/// asked once. Slurm notices such a node by itself.
void end_open_mpi_launcher(pid_t launcher);

}  // namespace moerun
