#pragma once
#include <span>
#include <vector>

namespace moerun {

inline constexpr char32_t kMaxCodePoint = 0x10FFFF;

/// `first` and `last` belong to it.
struct CodePointRange {
  char32_t first, last;
  bool operator==(const CodePointRange&) const = default;
};

/// A set of code points.
class CodePointSet {
 public:
  CodePointSet() = default;
  /// Ranges in any order, overlapping or not.
  explicit CodePointSet(std::vector<CodePointRange> ranges);

  /// Disjoint, not adjacent, ascending.
  std::span<const CodePointRange> ranges() const { return ranges_; }
  bool empty() const { return ranges_.empty(); }
  bool contains(char32_t c) const;

  CodePointSet complement() const;
  CodePointSet united(const CodePointSet& other) const;
  CodePointSet intersected(const CodePointSet& other) const;

 private:
  std::vector<CodePointRange> ranges_;
};

}  // namespace moerun
