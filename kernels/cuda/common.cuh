#pragma once
// What every CUDA kernel file shares: error checks, element types, warp reductions.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <string>

#include "moerun/dtype.h"
#include "moerun/error.h"

#ifndef CUDA_CHECK
#define CUDA_CHECK(call)                                                                             \
  do {                                                                                               \
    const cudaError_t cuda_check_status = (call);                                                    \
    if (cuda_check_status != cudaSuccess) {                                                          \
      throw ::moerun::Error(std::string("CUDA: ") + cudaGetErrorString(cuda_check_status) + " at " + \
                            __FILE__ + ":" + std::to_string(__LINE__) + " (" #call ")");             \
    }                                                                                                \
  } while (0)
#endif

namespace moerun::cuda {

constexpr int kWarpSize = 32;
constexpr unsigned kFullMask = 0xffffffffu;

template <class Int>
__host__ __device__ constexpr Int ceil_div(Int a, Int b) {
  return (a + b - 1) / b;
}
template <class Int>
__host__ __device__ constexpr Int round_up(Int a, Int b) {
  return ceil_div(a, b) * b;
}

__device__ __forceinline__ uint64_t nanoseconds() {
  uint64_t t;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t));
  return t;
}

/// float32 <-> a 16-bit element, rounding to nearest even, one or two at a time.
template <class T>
struct Element;

template <>
struct Element<__nv_bfloat16> {
  using Pair = __nv_bfloat162;
  static constexpr DType kDType = DType::bfloat16;
  static __device__ __nv_bfloat16 from_float(float v) { return __float2bfloat16_rn(v); }
  static __device__ Pair from_floats(float lo, float hi) { return __floats2bfloat162_rn(lo, hi); }
  static __device__ float to_float(__nv_bfloat16 v) { return __bfloat162float(v); }
  static __device__ float2 to_floats(Pair v) { return __bfloat1622float2(v); }
};

template <>
struct Element<__half> {
  using Pair = __half2;
  static constexpr DType kDType = DType::float16;
  static __device__ __half from_float(float v) { return __float2half_rn(v); }
  static __device__ Pair from_floats(float lo, float hi) { return __floats2half2_rn(lo, hi); }
  static __device__ float to_float(__half v) { return __half2float(v); }
  static __device__ float2 to_floats(Pair v) { return __half22float2(v); }
};

template <class T>
__device__ __forceinline__ uint32_t pack_floats(float lo, float hi) {
  const typename Element<T>::Pair pair = Element<T>::from_floats(lo, hi);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
template <class T>
__device__ __forceinline__ float2 unpack_floats(uint32_t bits) {
  return Element<T>::to_floats(*reinterpret_cast<const typename Element<T>::Pair*>(&bits));
}

/// Sums of two pairs, each rounded once: the bits of a float32 sum that is then rounded, whose 24 bits are
/// more than the 2·11 + 2 from which on rounding twice changes no sum (Figueroa, "When is double rounding
/// innocuous?", 1995).
template <class T>
__device__ __forceinline__ uint32_t add_pairs(uint32_t a, uint32_t b) {
  using Pair = typename Element<T>::Pair;
  const Pair sum = __hadd2_rn(*reinterpret_cast<const Pair*>(&a), *reinterpret_cast<const Pair*>(&b));
  return *reinterpret_cast<const uint32_t*>(&sum);
}

/// The same of eight elements.
template <class T>
__device__ __forceinline__ uint4 add_rounded(uint4 a, uint4 b) {
  return make_uint4(add_pairs<T>(a.x, b.x), add_pairs<T>(a.y, b.y), add_pairs<T>(a.z, b.z),
                    add_pairs<T>(a.w, b.w));
}

/// Calls `f` with a value of the element type that `dtype` names: `with_element(d, [&]<class T>(T) { … })`.
template <class F>
void with_element(DType dtype, F&& f) {
  switch (dtype) {
    case DType::bfloat16:
      return f(__nv_bfloat16{});
    case DType::float16:
      return f(__half{});
    case DType::float32:
    case DType::e4m3:
      break;
  }
  throw Error("the CUDA kernels take bfloat16 or float16, not " + std::string(name_of(dtype)));
}

}  // namespace moerun::cuda
