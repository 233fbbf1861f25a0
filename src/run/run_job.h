#pragma once
#include <optional>

#include "comm/mpi_env.h"
#include "fault/signals.h"
#include "fault/watchdog.h"
#include "run/start_up.h"

namespace moerun {

/// Runs (or resumes) a job on all ranks; returns the exit code, the same on every rank. `watchdog` is made
/// here as soon as there is something to watch, and outlives MPI, so that the caller closes it last.
/// Collective over world, main thread.
int run_job(MpiEnv& env, const RunOptions& options, StopSignals& signals, std::optional<Watchdog>& watchdog);

}  // namespace moerun
