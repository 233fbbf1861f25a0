#pragma once
#include <string>
#include <vector>

namespace moerun {

/// A line a file: device, inode, size and time of the last change of its content. Two that are equal were
/// taken of files that nobody wrote to or replaced in between, as far as a file system tells. They mean
/// something on one host alone. Throws BadInput where a file cannot be looked at.
std::string state_of_files(const std::vector<std::string>& paths);

}  // namespace moerun
