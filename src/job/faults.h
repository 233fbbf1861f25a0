#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace moerun {

/// Everything that is wrong with a job or an input, told at once: a user who mends one fault at a time runs
/// the check once a fault. Beyond kMostFaults the rest is counted.
class Faults {
 public:
  static constexpr size_t kMostFaults = 50;

  /// `where` is "FILE:LINE", "FILE" or "command line: KEY=VALUE".
  void add(const std::string& where, const std::string& what);
  /// A whole sentence that belongs to no place in a file.
  void add(const std::string& what);

  uint64_t count() const { return count_; }
  /// Throws BadInput with a line a fault, when there are any.
  void throw_if_any() const;

 private:
  std::vector<std::string> lines_;
  uint64_t count_ = 0;
};

}  // namespace moerun
