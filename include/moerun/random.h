#pragma once
#include <cstdint>
#ifndef __CUDACC__
#include <cmath>
#endif

#include "moerun/host_device.h"

namespace moerun {

/// Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011;
/// constants and rounds as in Random123.
struct Philox4x32 {
  uint32_t word[4];
};

MOERUN_HOST_DEVICE inline Philox4x32 philox4x32_10(Philox4x32 counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * counter.word[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * counter.word[2];
    counter = {
        {static_cast<uint32_t>(product1 >> 32) ^ counter.word[1] ^ key0, static_cast<uint32_t>(product1),
         static_cast<uint32_t>(product0 >> 32) ^ counter.word[3] ^ key1, static_cast<uint32_t>(product0)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

/// The randomness of one draw: a key from (seed, stream) and the position in the counter, so that nothing but
/// these three decides it. The draw for token `id` of the vocabulary is word id % 4 of counter id / 4.
struct DrawKey {
  uint32_t key0, key1, position;
};

/// The streams of a seed. Rows that draw by the job's seed have one each, by their number; a row that brings
/// its own seed draws from one that is the same wherever the row stands. Of a row's answers the first draws
/// from that stream, and answer j from the one that is j · 2⁴⁴ further: no input has so many rows.
inline constexpr uint64_t kOwnSeedStream = 0;
MOERUN_HOST_DEVICE constexpr uint64_t stream_of_row(uint64_t row) { return row + 1; }
MOERUN_HOST_DEVICE constexpr uint64_t stream_of_answer(uint64_t stream, uint64_t answer) {
  return stream + (answer << 44);
}

MOERUN_HOST_DEVICE inline DrawKey draw_key(uint64_t seed, uint64_t stream, int32_t position) {
  // SplitMix64's finalizer over both words: neighbouring rows of neighbouring seeds share no key.
  uint64_t z = seed + stream * 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  z ^= z >> 31;
  return {static_cast<uint32_t>(z), static_cast<uint32_t>(z >> 32), static_cast<uint32_t>(position)};
}

MOERUN_HOST_DEVICE inline Philox4x32 draw_words(const DrawKey& key, uint32_t group) {
  return philox4x32_10({{group, key.position, 0, 0}}, key.key0, key.key1);
}

/// A uniform number in (0, 1) from the top 23 bits: never 0, never 1, exact in float32.
MOERUN_HOST_DEVICE inline float open_unit(uint32_t word) {
  return (static_cast<float>(word >> 9) + 0.5f) * (1.0f / 8388608.0f);
}

/// Standard Gumbel noise −log(−log u): argmax over logit/temperature + noise is a draw from the softmax
/// (Maddison et al., "A* Sampling", 2014).
MOERUN_HOST_DEVICE inline float gumbel(uint32_t word) {
#ifdef __CUDACC__
  return -logf(-logf(open_unit(word)));
#else
  return -std::log(-std::log(open_unit(word)));
#endif
}

}  // namespace moerun
