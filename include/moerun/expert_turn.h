#pragma once
#include <cstdint>

namespace moerun {

/// An expert that has copies is computed by one of the ranks that hold it. Each of the expert's
/// `kExpertTurns` turns belongs to one of them, and a token's turn says which computes it: how often a rank
/// is named is its share of the expert's tokens. Bits do not depend on it, because every rank computes an
/// expert's row alike.
inline constexpr int32_t kExpertTurns = 64;

/// The turn of the token at place `token` of what rank `source_rank` of the engine brings to a layer: the
/// place times the golden ratio, modulo one (multiplicative hashing: Knuth, The Art of Computer Programming,
/// volume 3, section 6.4). So not only all tokens but also every second, third, … of them spread evenly over
/// the turns: the sequences of a batch may well repeat.
constexpr int32_t turn_of(int32_t source_rank, int32_t token) {
  constexpr uint32_t kGolden = 2654435769, kRankStride = 10007;  // 2³² / φ; ranks begin apart
  const uint32_t place = static_cast<uint32_t>(source_rank) * kRankStride + static_cast<uint32_t>(token);
  return static_cast<int32_t>((place * kGolden) >> 26);
}
static_assert(kExpertTurns == 1 << (32 - 26));

}  // namespace moerun
