#pragma once
// What the CUDA kernels take: the numbers by which launchers refuse, and by which a job is refused before
// anything loads (src/plan/device_limits.h). Plain, so that the host may read them.
#include <array>
#include <cstdint>

namespace moerun::limits {

inline constexpr int32_t kVector = 8;  ///< elements that a thread moves at once: rows are whole vectors
inline constexpr std::array<int32_t, 3> kHeadDims{64, 128, 256};
inline constexpr int32_t kBlockTokens = 32;  ///< a key/value block is a multiple of it
inline constexpr int32_t kMaxGroup =
    16;  ///< query heads a key head: of the kernels of prompts (128) and answers (16) the less
inline constexpr int32_t kMaxDeltaDim = 128;  ///< elements of a gated delta net's head
inline constexpr int32_t kMaxConvWidth = 4;   ///< positions of its convolution
inline constexpr int32_t kMaxNormCols = 16384;
inline constexpr int32_t kMaxExperts = 512;
inline constexpr int32_t kMaxRouterK = 32;  ///< experts a token, to choose
inline constexpr int32_t kMaxRouterGroups = 32;
inline constexpr int32_t kMaxCombineK = 16;  ///< and to add up
inline constexpr int32_t kMaxVocab = 1 << 22;
inline constexpr int64_t kMaxGridRows = 65535;   ///< blocks of a grid along y
inline constexpr int64_t kOrderedGemmRows = 16;  ///< of a block of ordered_gemm

inline constexpr int kMaxP2pRanks = 64;  ///< a bit each

}  // namespace moerun::limits
