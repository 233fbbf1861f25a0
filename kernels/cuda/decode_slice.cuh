#pragma once
// What a warp of decode attention holds of a slice of 16 keys and their values, in registers, as operands of
// the matrix instruction.
#include "kernels/cuda/fp8_cache.cuh"

namespace moerun::cuda {

__device__ __forceinline__ uint4 load16(const void* p, bool valid) {
  uint4 v = make_uint4(0, 0, 0, 0);
  if (valid)
    asm volatile("ld.global.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p)
                 : "memory");
  return v;
}

__device__ __forceinline__ uint2 load8(const void* p, bool valid) {
  uint2 v = make_uint2(0, 0);
  if (valid)
    asm volatile("ld.global.L1::no_allocate.L2::128B.v2.u32 {%0, %1}, [%2];"
                 : "=r"(v.x), "=r"(v.y)
                 : "l"(p)
                 : "memory");
  return v;
}

__device__ __forceinline__ uint32_t word(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/// What lane (g = lane / 4, t = lane % 4) holds of 16 keys. keys[r][j]: elements [32j + 8t, + 8) of key
/// g + 8r. values[i][j]: elements [64j + 8g, + 8) of keys 2t, 2t + 1, 2t + 8, 2t + 9.
///
/// Step s of kDim / 16 sums over four elements of a lane's keys, key_element(s) and on; value operand m of
/// kDim / 16 is two elements of its values, of which operands 2m and 2m + 1 make four: value_element(m) and
/// on.
template <class T, class C, int kDim>
struct Slice {
  uint4 keys[2][kDim / 32], values[4][kDim / 64];

  static __device__ int key_element(int step, int t) { return step / 2 * 32 + t * 8 + step % 2 * 4; }
  static __device__ int value_element(int m, int g) { return m / 2 * 64 + g * 8 + m % 2 * 4; }

  /// `row`: the slice's first; `count`: keys that there are. The others count as zeros.
  __device__ void load_keys(const void* cache, int64_t row, int32_t count, int lane) {
    const int g = lane / 4, t = lane % 4;
    const T* const from = static_cast<const T*>(cache) + (row + g) * kDim + t * 8;
#pragma unroll
    for (int r = 0; r < 2; ++r)
#pragma unroll
      for (int j = 0; j < kDim / 32; ++j)
        keys[r][j] = load16(from + r * 8 * kDim + j * 32, g + 8 * r < count);
  }
  __device__ void load_values(const void* cache, int64_t row, int32_t count, int lane) {
    const int g = lane / 4, t = lane % 4;
    const T* const from = static_cast<const T*>(cache) + (row + 2 * t) * kDim + g * 8;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int key = i / 2 * 8 + i % 2;
#pragma unroll
      for (int j = 0; j < kDim / 64; ++j)
        values[i][j] = load16(from + key * kDim + j * 64, 2 * t + key < count);
    }
  }

  __device__ void key_operand(int step, uint32_t (&a)[4]) const {
    const uint4 &low = keys[0][step / 2], &high = keys[1][step / 2];
    const int w = step % 2 * 2;
    a[0] = word(low, w), a[1] = word(high, w), a[2] = word(low, w + 1), a[3] = word(high, w + 1);
  }
  __device__ void value_operand(int m, uint32_t (&a)[4]) const {
    uint32_t v[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = word(values[i][m / 4], m % 4);
    a[0] = __byte_perm(v[0], v[1], 0x5410), a[1] = __byte_perm(v[0], v[1], 0x7632);
    a[2] = __byte_perm(v[2], v[3], 0x5410), a[3] = __byte_perm(v[2], v[3], 0x7632);
  }
  /// Take note of what is NaN and whose operands are not.
  __device__ void look_at_keys(uint32_t&) const {}
  __device__ void look_at_values(uint32_t&) const {}
};

/// The same of e4m3. keys[r][j]: elements [64j + 16t, + 16) of key g + 8r. values[i]: the lane's eighth of
/// those keys, four a word.
template <class T, int kDim>
struct Slice<T, E4m3, kDim> {
  static constexpr int kEighth = kDim / 8;
  uint4 keys[2][kDim / 64];
  uint32_t values[4][kEighth / 4];

  static __device__ int key_element(int step, int t) { return step / 4 * 64 + t * 16 + step % 4 * 4; }
  static __device__ int value_element(int m, int g) { return g * kEighth + m * 4; }

  __device__ void load_keys(const void* cache, int64_t row, int32_t count, int lane) {
    const int g = lane / 4, t = lane % 4;
    const E4m3* const from = static_cast<const E4m3*>(cache) + (row + g) * kDim + t * 16;
#pragma unroll
    for (int r = 0; r < 2; ++r)
#pragma unroll
      for (int j = 0; j < kDim / 64; ++j)
        keys[r][j] = load16(from + r * 8 * kDim + j * 64, g + 8 * r < count);
  }
  __device__ void load_values(const void* cache, int64_t row, int32_t count, int lane) {
    const int g = lane / 4, t = lane % 4;
    const E4m3* const from = static_cast<const E4m3*>(cache) + (row + 2 * t) * kDim + g * kEighth;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int key = i / 2 * 8 + i % 2;
      static_assert(kEighth == 8 || kEighth == 16 || kEighth == 32);
      if constexpr (kEighth == 16) {
        const uint4 v = load16(from + key * kDim, 2 * t + key < count);
        values[i][0] = v.x, values[i][1] = v.y, values[i][2] = v.z, values[i][3] = v.w;
      } else if constexpr (kEighth == 32) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const uint4 v = load16(from + key * kDim + half * 16, 2 * t + key < count);
          values[i][4 * half] = v.x, values[i][4 * half + 1] = v.y;
          values[i][4 * half + 2] = v.z, values[i][4 * half + 3] = v.w;
        }
      } else {
        const uint2 v = load8(from + key * kDim, 2 * t + key < count);
        values[i][0] = v.x, values[i][1] = v.y;
      }
    }
  }

  __device__ void key_operand(int step, uint32_t (&a)[4]) const {
    const uint32_t low = word(keys[0][step / 4], step % 4), high = word(keys[1][step / 4], step % 4);
    a[0] = Widen<T>::template pair<0, 1>(low, low), a[1] = Widen<T>::template pair<0, 1>(high, high);
    a[2] = Widen<T>::template pair<2, 3>(low, low), a[3] = Widen<T>::template pair<2, 3>(high, high);
  }
  __device__ void value_operand(int m, uint32_t (&a)[4]) const {
    const auto operand = [&]<int kFirst>() {
      uint32_t v[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) v[i] = values[i][m / 2];
      a[0] = Widen<T>::template pair<kFirst, kFirst>(v[0], v[1]);
      a[1] = Widen<T>::template pair<kFirst + 1, kFirst + 1>(v[0], v[1]);
      a[2] = Widen<T>::template pair<kFirst, kFirst>(v[2], v[3]);
      a[3] = Widen<T>::template pair<kFirst + 1, kFirst + 1>(v[2], v[3]);
    };
    if (m % 2 == 0)
      operand.template operator()<0>();
    else
      operand.template operator()<2>();
  }
  __device__ void look_at_keys(uint32_t& worst) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) worst = max(worst, keys[r][0].x & kE4m3Nan);
  }
  __device__ void look_at_values(uint32_t& worst) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) worst = max(worst, values[i][0] & kE4m3Nan);
  }
};

}  // namespace moerun::cuda
