#pragma once
#include <cstddef>
#include <cstdint>

/// What bounds a template: it is data from a download, and may be made to harm. Real templates stay below a
/// hundredth of each.
namespace moerun::jinja {

inline constexpr size_t kMaxTemplateBytes = size_t{1} << 20;  ///< of a template's text
inline constexpr size_t kMaxNamesInBranches = 2'000'000;      ///< of a template, all branches together
inline constexpr int kMaxTreeDepth = 250;                     ///< constructs within constructs, in the text
inline constexpr int kMaxCallDepth = 1500;  ///< of those at work at once, macros' bodies included
inline constexpr int kMaxValueDepth = 200;  ///< lists within lists and the like
inline constexpr uint64_t kMaxSteps =
    50'000'000;  ///< nodes evaluated, items made, kBytesAStep copied or compared
inline constexpr size_t kBytesAStep = 64;
inline constexpr size_t kMaxLiveBytes = size_t{256} << 20;   ///< of values alive at once
inline constexpr size_t kMaxOutputBytes = size_t{64} << 20;  ///< of a prompt, and of any text
inline constexpr int kMaxIntegerBits = 14'000;               ///< about the 4,300 digits that Python prints
inline constexpr int64_t kMaxRange = 100'000;                ///< of `range()`, as in jinja2's sandbox

}  // namespace moerun::jinja
