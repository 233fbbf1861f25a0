#pragma once
#include <optional>

namespace moerun {

/// What main() does first: in the process that an Hdf5Child started, serves it and returns the exit code.
std::optional<int> hdf5_child_main(int argc, char** argv);

}  // namespace moerun
