#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace moerun {

/// How many tokens both begin with. Prompts of an evaluation have thousands in common, and are compared many
/// times: in pieces, by the library's fastest.
inline size_t common_prefix(std::span<const int32_t> a, std::span<const int32_t> b) {
  constexpr size_t kPiece = 64;
  const size_t most = std::min(a.size(), b.size());
  size_t alike = 0;
  while (alike + kPiece <= most &&
         std::memcmp(a.data() + alike, b.data() + alike, kPiece * sizeof(int32_t)) == 0)
    alike += kPiece;
  while (alike < most && a[alike] == b[alike]) ++alike;
  return alike;
}

}  // namespace moerun
