#pragma once
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>
#include <type_traits>

namespace moerun {

/// How many elements both begin with. Prompts of an evaluation have thousands of tokens in common, and are
/// compared many times: in pieces, by the library's fastest.
template <class T>
size_t common_prefix(std::span<const T> a, std::span<const T> b) {
  static_assert(std::has_unique_object_representations_v<T>);
  constexpr size_t kPiece = 256 / sizeof(T);
  const size_t most = std::min(a.size(), b.size());
  size_t alike = 0;
  while (alike + kPiece <= most && std::memcmp(a.data() + alike, b.data() + alike, kPiece * sizeof(T)) == 0)
    alike += kPiece;
  while (alike < most && a[alike] == b[alike]) ++alike;
  return alike;
}

}  // namespace moerun
