#pragma once
#include <functional>
#include <optional>
#include <string>

namespace moerun {

/// An environment variable's value, or null; std::getenv, and a table in tests.
using Environment = std::function<const char*(const char*)>;

/// Processes of a launcher that this program's MPI library does not work with each see a world of one rank,
/// and each would run the whole job on one GPU. A sentence that says so with its fix, where the launcher's
/// environment names more processes than the one that MPI sees; empty otherwise. `world_size` as MPI sees it;
/// none before MPI is started: then it is known where the launcher has left MPI no way to the others (PMIx or
/// PMI), and MPI would end the process with words of its own.
std::string unjoined_tasks(std::optional<int> world_size, const Environment& environment);

}  // namespace moerun
