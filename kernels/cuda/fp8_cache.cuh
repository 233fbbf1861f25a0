#pragma once
// Keys and values in e4m3: rounded without a scale where they are written, widened to the activations' type
// where they are read, which is exact. A row (a token's key or value of one head) that has a NaN is NaN as a
// whole: so whoever reads it looks at one byte of sixteen.
#include "kernels/cuda/attention_heads.cuh"
#include "kernels/cuda/fp8.cuh"

namespace moerun::cuda {

/// What a cache in e4m3 holds; a cache in 16 bits holds the kernels' T.
using E4m3 = uint8_t;

constexpr uint32_t kE4m3Nan = 0x7f;

/// Two bytes of e4m3 to T: they move to where T has its exponent, and a product with a power of two makes up
/// for the other bias; both subnormal and normal numbers come out exactly. NaN comes out as 480.
template <class T>
struct Widen {
  static constexpr bool kBfloat16 = std::is_same_v<T, __nv_bfloat16>;
  static constexpr int kShift = kBfloat16 ? 4 : 7;
  static constexpr uint32_t kMask = kBfloat16 ? 0x87f087f0u : 0xbf80bf80u;
  static constexpr uint32_t kBias = kBfloat16 ? 0x7b807b80u : 0x5c005c00u;  // 2^120, 2^8

  /// Byte kLow of `a` becomes the lower element, byte kHigh of `b` the upper one.
  template <int kLow, int kHigh>
  static __device__ __forceinline__ uint32_t pair(uint32_t a, uint32_t b) {
    // Selectors of 8 and more fill a byte with the sign of the byte that they name.
    constexpr uint32_t kSelect = kLow | (8 + kLow) << 4 | (4 + kHigh) << 8 | (12 + kHigh) << 12;
    uint32_t bytes;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(bytes) : "r"(a), "r"(b), "n"(kSelect));
    using Pair = typename Element<T>::Pair;
    const uint32_t moved = bytes << kShift & kMask, bias = kBias;
    const Pair wide =
        __hmul2_rn(*reinterpret_cast<const Pair*>(&moved), *reinterpret_cast<const Pair*>(&bias));
    return *reinterpret_cast<const uint32_t*>(&wide);
  }
};

/// Sixteen elements of a row as T, a NaN too.
template <class T>
__device__ __forceinline__ void widen(uint4 bytes, uint4 (&out)[2]) {
  const auto half = [](uint32_t first, uint32_t second) {
    return make_uint4(
        Widen<T>::template pair<0, 1>(first, first), Widen<T>::template pair<2, 3>(first, first),
        Widen<T>::template pair<0, 1>(second, second), Widen<T>::template pair<2, 3>(second, second));
  };
  out[0] = half(bytes.x, bytes.y);
  out[1] = half(bytes.z, bytes.w);
  if ((bytes.x & kE4m3Nan) == kE4m3Nan) out[0].x = 0x7fff7fffu;
}

/// Part of a row, divided by `scale`, to a cache in e4m3.
template <int kCount>
__device__ __forceinline__ void store_rounded(const float (&row)[kCount], float scale, bool row_has_nan,
                                              E4m3* to) {
  static_assert(kCount == 2 || kCount == 4 || kCount == 8);
  float v[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) v[i] = row[i];
  if (scale != 1) {  // the same for all threads
#pragma unroll
    for (int i = 0; i < kCount; ++i) v[i] = __fdiv_rn(v[i], scale);
  }
  if constexpr (kCount == 8)
    *reinterpret_cast<uint2*>(to) =
        row_has_nan ? make_uint2(kE4m3Nan * 0x01010101u, kE4m3Nan * 0x01010101u)
                    : make_uint2(pack_e4m3(v[0], v[1], v[2], v[3]), pack_e4m3(v[4], v[5], v[6], v[7]));
  else if constexpr (kCount == 4)
    *reinterpret_cast<uint32_t*>(to) =
        row_has_nan ? kE4m3Nan * 0x01010101u : pack_e4m3(v[0], v[1], v[2], v[3]);
  else
    *reinterpret_cast<uint16_t*>(to) =
        static_cast<uint16_t>(row_has_nan ? kE4m3Nan * 0x0101u : pack_e4m3(v[0], v[1]));
}

template <int kCount>
__device__ __forceinline__ bool has_nan(const float (&v)[kCount]) {
  bool nan = false;
#pragma unroll
  for (const float x : v) nan |= isnan(x);
  return nan;
}

/// Calls f with the element type, that of keys and values, and the head size: `f.operator()<T, C, kDim>()`.
template <class F>
void with_cache(DType dtype, const KvLayer& kv, F&& f) {
  if (kv.k.dtype != kv.v.dtype || (kv.k.dtype != DType::e4m3 && kv.k.dtype != dtype))
    throw Error("keys in " + std::string(name_of(kv.k.dtype)) + " and values in " +
                std::string(name_of(kv.v.dtype)) + " beside activations in " + std::string(name_of(dtype)));
  with_head(dtype, kv.head_dim, [&]<class T, int kDim>() {
    if (kv.k.dtype == DType::e4m3)
      f.template operator()<T, E4m3, kDim>();
    else
      f.template operator()<T, T, kDim>();
  });
}

}  // namespace moerun::cuda
