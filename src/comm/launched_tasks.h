#pragma once
#include <functional>
#include <string>

namespace moerun {

/// An environment variable's value, or null; std::getenv, and a table in tests.
using Environment = std::function<const char*(const char*)>;

/// Processes of a launcher that this program's MPI library does not work with each see a world of one rank,
/// and each would run the whole job on one GPU. A sentence that says so with its fix, where the launcher's
/// environment names more processes than the one that MPI sees; empty otherwise.
std::string unjoined_tasks(int world_size, const Environment& environment);

}  // namespace moerun
