#pragma once
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace moerun {

/// Everything that is wrong with a job or an input, told at once: a user who mends one fault at a time runs
/// the check once a fault. Faults of a kind (the same sentence but for its numbers and quoted values) are
/// told kMostOfAKind times and then counted, the same sentence once; beyond kMostKinds kinds the rest is
/// counted.
class Faults {
 public:
  static constexpr size_t kMostKinds = 50, kMostOfAKind = 3;

  /// `where` is "FILE:LINE", "FILE" or "command line: KEY=VALUE".
  void add(const std::string& where, const std::string& what);
  /// A whole sentence that belongs to no place in a file.
  void add(const std::string& what);

  uint64_t count() const { return count_; }
  /// Throws BadInput with the faults, a line each, when there are any.
  void throw_if_any() const;

 private:
  struct Fault {
    std::string where, what;
  };
  struct Kind {
    std::vector<Fault> first;  // at most kMostOfAKind
    uint64_t count = 0;
  };

  std::vector<Kind> kinds_;                          // in the order of their first faults
  std::unordered_map<std::string, size_t> numbers_;  // of kinds_, by what their sentences share
  uint64_t count_ = 0, of_other_kinds_ = 0;
};

}  // namespace moerun
