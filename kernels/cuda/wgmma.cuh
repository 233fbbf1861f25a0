#pragma once
// Hopper's matrix instruction for a warpgroup, as the PTX ISA describes it ("Asynchronous Warpgroup Level
// Matrix Instructions").
#include "kernels/cuda/hopper.cuh"

namespace moerun::cuda {

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kGroups>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroups) : "memory");
}

/// Descriptor of a K-major operand whose rows are 128 bytes (64 elements) with the 128-byte swizzle: element
/// chunk c (16 bytes) of row r lies at r·128 + ((c ^ (r & 7)) · 16). The tile starts at a multiple of 1,024
/// bytes; eight rows are 1,024 bytes; + 2 steps 16 elements along K.
__device__ __forceinline__ uint64_t wgmma_descriptor(uint32_t shared) {
  constexpr uint64_t kSwizzle128 = 1ull << 62, kStride = (1024ull >> 4) << 32, kLeading = 1ull << 16;
  return kSwizzle128 | kStride | kLeading | ((shared & 0x3ffffu) >> 4);
}
/// The same of every other eight rows of such a tile; + 64 the eight rows that those leave out.
__device__ __forceinline__ uint64_t wgmma_descriptor_alternate(uint32_t shared) {
  constexpr uint64_t kSwizzle128 = 1ull << 62, kStride = (2048ull >> 4) << 32, kLeading = 1ull << 16;
  return kSwizzle128 | kStride | kLeading | ((shared & 0x3ffffu) >> 4);
}

// The operand lists of wgmma are long: N/2 accumulators. They are put together from runs of 16.
#define MOERUN_D0 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define MOERUN_D1 MOERUN_D0 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define MOERUN_D2 MOERUN_D1 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define MOERUN_D3 MOERUN_D2 ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define MOERUN_D4 MOERUN_D3 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"
#define MOERUN_D5 MOERUN_D4 ",%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define MOERUN_D6 MOERUN_D5 ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111"
#define MOERUN_D7 MOERUN_D6 ",%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define MOERUN_F4(o) "+f"(d[o]), "+f"(d[o + 1]), "+f"(d[o + 2]), "+f"(d[o + 3])
#define MOERUN_F16(o) MOERUN_F4(o), MOERUN_F4(o + 4), MOERUN_F4(o + 8), MOERUN_F4(o + 12)
#define MOERUN_F0 MOERUN_F16(0)
#define MOERUN_F1 MOERUN_F0, MOERUN_F16(16)
#define MOERUN_F2 MOERUN_F1, MOERUN_F16(32)
#define MOERUN_F3 MOERUN_F2, MOERUN_F16(48)
#define MOERUN_F4X MOERUN_F3, MOERUN_F16(64)
#define MOERUN_F5 MOERUN_F4X, MOERUN_F16(80)
#define MOERUN_F6 MOERUN_F5, MOERUN_F16(96)
#define MOERUN_F7 MOERUN_F6, MOERUN_F16(112)
// Widths that are no multiple of 32, each from the one below.
#define MOERUN_L20 MOERUN_D0 ",%16,%17,%18,%19"
#define MOERUN_L28 MOERUN_L20 ",%20,%21,%22,%23,%24,%25,%26,%27"
#define MOERUN_L36 MOERUN_L28 ",%28,%29,%30,%31,%32,%33,%34,%35"
#define MOERUN_L44 MOERUN_L36 ",%36,%37,%38,%39,%40,%41,%42,%43"
#define MOERUN_L52 MOERUN_L44 ",%44,%45,%46,%47,%48,%49,%50,%51"
#define MOERUN_L56 MOERUN_L52 ",%52,%53,%54,%55"
#define MOERUN_L60 MOERUN_L56 ",%56,%57,%58,%59"
#define MOERUN_L68 MOERUN_D3 ",%64,%65,%66,%67"
#define MOERUN_L72 MOERUN_L68 ",%68,%69,%70,%71"
#define MOERUN_L76 MOERUN_L72 ",%72,%73,%74,%75"
#define MOERUN_L104 MOERUN_D5 ",%96,%97,%98,%99,%100,%101,%102,%103"
#define MOERUN_L108 MOERUN_L104 ",%104,%105,%106,%107"
#define MOERUN_L120 MOERUN_D6 ",%112,%113,%114,%115,%116,%117,%118,%119"
#define MOERUN_O20 MOERUN_F0, MOERUN_F4(16)
#define MOERUN_O28 MOERUN_O20, MOERUN_F4(20), MOERUN_F4(24)
#define MOERUN_O36 MOERUN_O28, MOERUN_F4(28), MOERUN_F4(32)
#define MOERUN_O44 MOERUN_O36, MOERUN_F4(36), MOERUN_F4(40)
#define MOERUN_O52 MOERUN_O44, MOERUN_F4(44), MOERUN_F4(48)
#define MOERUN_O56 MOERUN_O52, MOERUN_F4(52)
#define MOERUN_O60 MOERUN_O56, MOERUN_F4(56)
#define MOERUN_O68 MOERUN_F3, MOERUN_F4(64)
#define MOERUN_O72 MOERUN_O68, MOERUN_F4(68)
#define MOERUN_O76 MOERUN_O72, MOERUN_F4(72)
#define MOERUN_O104 MOERUN_F5, MOERUN_F4(96), MOERUN_F4(100)
#define MOERUN_O108 MOERUN_O104, MOERUN_F4(104)
#define MOERUN_O120 MOERUN_F6, MOERUN_F4(112), MOERUN_F4(116)
#define MOERUN_WGMMA_TYPED(N, TYPE, LIST, A, B, C, ...)                                                     \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" LIST "}, %" #A ", %" #B \
               ", %" #C ", 1, 1, 0, 0;"                                                                     \
               : __VA_ARGS__                                                                                \
               : "l"(a), "l"(b), "n"(kAccumulate ? 1 : 0))
#define MOERUN_WGMMA(N, LIST, A, B, C, ...)                      \
  if constexpr (kColumns == N) {                                 \
    if constexpr (std::is_same_v<T, __half>) {                   \
      MOERUN_WGMMA_TYPED(N, "f16", LIST, A, B, C, __VA_ARGS__);  \
    } else {                                                     \
      MOERUN_WGMMA_TYPED(N, "bf16", LIST, A, B, C, __VA_ARGS__); \
    }                                                            \
  }

/// d [64, kColumns] += a [64, 16] · b [kColumns, 16]ᵀ by the four warps of a warpgroup, both operands in
/// shared memory. d[4j + 2h + c] of lane l in warp w is row 16w + 8h + l/4, column 8j + 2(l%4) + c.
/// Without kAccumulate: d = a·b.
template <class T, int kColumns, bool kAccumulate = true>
__device__ __forceinline__ void wgmma_64xNx16(float (&d)[kColumns / 2], uint64_t a, uint64_t b) {
  MOERUN_WGMMA(32, MOERUN_D0, 16, 17, 18, MOERUN_F0)
  MOERUN_WGMMA(64, MOERUN_D1, 32, 33, 34, MOERUN_F1)
  MOERUN_WGMMA(96, MOERUN_D2, 48, 49, 50, MOERUN_F2)
  MOERUN_WGMMA(128, MOERUN_D3, 64, 65, 66, MOERUN_F3)
  MOERUN_WGMMA(160, MOERUN_D4, 80, 81, 82, MOERUN_F4X)
  MOERUN_WGMMA(192, MOERUN_D5, 96, 97, 98, MOERUN_F5)
  MOERUN_WGMMA(224, MOERUN_D6, 112, 113, 114, MOERUN_F6)
  MOERUN_WGMMA(256, MOERUN_D7, 128, 129, 130, MOERUN_F7)
  MOERUN_WGMMA(40, MOERUN_L20, 20, 21, 22, MOERUN_O20)
  MOERUN_WGMMA(56, MOERUN_L28, 28, 29, 30, MOERUN_O28)
  MOERUN_WGMMA(72, MOERUN_L36, 36, 37, 38, MOERUN_O36)
  MOERUN_WGMMA(88, MOERUN_L44, 44, 45, 46, MOERUN_O44)
  MOERUN_WGMMA(104, MOERUN_L52, 52, 53, 54, MOERUN_O52)
  MOERUN_WGMMA(112, MOERUN_L56, 56, 57, 58, MOERUN_O56)
  MOERUN_WGMMA(120, MOERUN_L60, 60, 61, 62, MOERUN_O60)
  MOERUN_WGMMA(136, MOERUN_L68, 68, 69, 70, MOERUN_O68)
  MOERUN_WGMMA(144, MOERUN_L72, 72, 73, 74, MOERUN_O72)
  MOERUN_WGMMA(152, MOERUN_L76, 76, 77, 78, MOERUN_O76)
  MOERUN_WGMMA(216, MOERUN_L108, 108, 109, 110, MOERUN_O108)
  MOERUN_WGMMA(240, MOERUN_L120, 120, 121, 122, MOERUN_O120)
  constexpr bool kKnown = kColumns % 32 == 0 || kColumns == 40 || kColumns == 56 || kColumns == 72 ||
                          kColumns == 88 || kColumns == 104 || kColumns == 112 || kColumns == 120 ||
                          kColumns == 136 || kColumns == 144 || kColumns == 152 || kColumns == 216 ||
                          kColumns == 240;
  static_assert(kKnown && kColumns <= 256);
}

/// Descriptor of the second operand when it lies with its columns contiguous (a row of values for each key):
/// element (k, n) of the tile at (n / 64)·`column_bytes` + k·128 + ((n % 64 / 8 ^ (k & 7)) · 16) + n % 8 · 2;
/// + 128 steps 16 rows along K. Starts at a multiple of 1,024 bytes.
__device__ __forceinline__ uint64_t wgmma_descriptor_transposed(uint32_t shared, uint32_t column_bytes) {
  constexpr uint64_t kSwizzle128 = 1ull << 62, kStride = (1024ull >> 4) << 32;
  return kSwizzle128 | kStride | static_cast<uint64_t>(column_bytes >> 4) << 16 | ((shared & 0x3ffffu) >> 4);
}

// The same with the first operand in registers, A to A + 3, and the second one transposed.
#define MOERUN_WGMMA_A_TYPED(N, TYPE, LIST, A0, A1, A2, A3, B, ...)                                  \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE " {" LIST "}, {%" #A0 \
               ", %" #A1 ", %" #A2 ", %" #A3 "}, %" #B ", 1, 1, 1, 1;"                               \
               : __VA_ARGS__                                                                         \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
#define MOERUN_WGMMA_A(N, LIST, A0, A1, A2, A3, B, ...)                      \
  if constexpr (kColumns == N) {                                             \
    if constexpr (std::is_same_v<T, __half>) {                               \
      MOERUN_WGMMA_A_TYPED(N, "f16", LIST, A0, A1, A2, A3, B, __VA_ARGS__);  \
    } else {                                                                 \
      MOERUN_WGMMA_A_TYPED(N, "bf16", LIST, A0, A1, A2, A3, B, __VA_ARGS__); \
    }                                                                        \
  }

/// d [64, kColumns] += a [64, 16] · b [16, kColumns]; b as wgmma_descriptor_transposed says. Lane l of warp w
/// holds of a: in a[2i + h] elements (16w + 8h + l/4, 8i + 2(l%4) + {0, 1}).
template <class T, int kColumns>
__device__ __forceinline__ void wgmma_64xNx16(float (&d)[kColumns / 2], const uint32_t (&a)[4], uint64_t b) {
  static_assert(kColumns == 64 || kColumns == 128 || kColumns == 256);
  MOERUN_WGMMA_A(64, MOERUN_D1, 32, 33, 34, 35, 36, MOERUN_F1)
  MOERUN_WGMMA_A(128, MOERUN_D3, 64, 65, 66, 67, 68, MOERUN_F3)
  MOERUN_WGMMA_A(256, MOERUN_D7, 128, 129, 130, 131, 132, MOERUN_F7)
}

/// Keeps the compiler from touching accumulators before the wait that this follows.
template <int kCount>
__device__ __forceinline__ void wgmma_settled(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

#define MOERUN_WGMMA_FP8(N, LIST, A, B, C, ...)                                                       \
  if constexpr (kColumns == N)                                                                        \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k32.f32.e4m3.e4m3 {" LIST "}, %" #A ", %" #B \
                 ", %" #C ", 1, 1;"                                                                   \
                 : __VA_ARGS__                                                                        \
                 : "l"(a), "l"(b), "n"(kAccumulate ? 1 : 0));

/// The same for e4m3, 32 of K: d [64, kColumns] += a [64, 32] · b [kColumns, 32]ᵀ; without kAccumulate d =
/// a·b. Rows of operands are 128 bytes, as wgmma_descriptor says; + 2 steps 32 elements along K.
template <int kColumns, bool kAccumulate>
__device__ __forceinline__ void wgmma_64xNx32_e4m3(float (&d)[kColumns / 2], uint64_t a, uint64_t b) {
  static_assert(kColumns == 64 || kColumns == 128);
  MOERUN_WGMMA_FP8(64, MOERUN_D1, 32, 33, 34, MOERUN_F1)
  MOERUN_WGMMA_FP8(128, MOERUN_D3, 64, 65, 66, MOERUN_F3)
}

#undef MOERUN_WGMMA_FP8
#undef MOERUN_WGMMA_A
#undef MOERUN_WGMMA_A_TYPED
#undef MOERUN_WGMMA
#undef MOERUN_WGMMA_TYPED
#undef MOERUN_D0
#undef MOERUN_D1
#undef MOERUN_D2
#undef MOERUN_D3
#undef MOERUN_D4
#undef MOERUN_D5
#undef MOERUN_D6
#undef MOERUN_D7
#undef MOERUN_F0
#undef MOERUN_F1
#undef MOERUN_F2
#undef MOERUN_F3
#undef MOERUN_F4
#undef MOERUN_F4X
#undef MOERUN_F5
#undef MOERUN_F6
#undef MOERUN_F7
#undef MOERUN_F16
#undef MOERUN_L20
#undef MOERUN_L28
#undef MOERUN_L36
#undef MOERUN_L44
#undef MOERUN_L52
#undef MOERUN_L56
#undef MOERUN_L60
#undef MOERUN_L68
#undef MOERUN_L72
#undef MOERUN_L76
#undef MOERUN_L104
#undef MOERUN_L108
#undef MOERUN_L120
#undef MOERUN_O20
#undef MOERUN_O28
#undef MOERUN_O36
#undef MOERUN_O44
#undef MOERUN_O52
#undef MOERUN_O56
#undef MOERUN_O60
#undef MOERUN_O68
#undef MOERUN_O72
#undef MOERUN_O76
#undef MOERUN_O104
#undef MOERUN_O108
#undef MOERUN_O120

}  // namespace moerun::cuda
