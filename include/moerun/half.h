#pragma once
#include <bit>
#include <cstdint>
#include <cstring>

#include "moerun/dtype.h"

namespace moerun {

/// Floats of 16 and 8 bits on the host. Conversions to them round to nearest, ties to even, as the GPU's do
/// (IEEE 754 binary16; bfloat16 is the upper half of binary32; e4m3 of OFP8 revision 1.0), so that a value
/// rounded here has the bits it has there.

inline float bfloat16_to_float(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

inline uint16_t float_to_bfloat16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;  // NaN, as __float2bfloat16_rn
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float float16_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fffu) << 13;
  // The exponent is rebiased by a multiplication, which also normalises subnormals: 2^112.
  if (magnitude >= 0x0f800000u) return std::bit_cast<float>(sign | 0x70000000u | magnitude);  // infinity, NaN
  const float value = std::bit_cast<float>(magnitude) * std::bit_cast<float>(0x77800000u);
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(value));
}

inline uint16_t float_to_float16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7fff;           // NaN, as __float2half_rn
  if (magnitude >= 0x47800000u) return sign | 0x7c00u;  // 65536 and more
  if (magnitude < 0x38800000u) {
    // Below 2^-14 the result is a multiple of 2^-24: adding 0.5 leaves it, rounded, in the mantissa's low
    // bits.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(shifted) - 0x3f000000u);
  }
  // Rebias the exponent by −112; a carry out of the mantissa raises the exponent, up to infinity.
  const uint32_t rounded = magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u);
  return sign | static_cast<uint16_t>(rounded >> 13);
}

inline constexpr bool is_nan_e4m3(uint8_t bits) { return (bits & 0x7fu) == 0x7fu; }

/// Of what is no NaN: without a branch, for loops that are to be vectorised.
inline float finite_e4m3_to_float(uint8_t bits) {
  // As for float16, rebiased by 2^120.
  const float value = std::bit_cast<float>(static_cast<uint32_t>(bits & 0x7fu) << 20) * 0x1p120F;
  return std::bit_cast<float>(static_cast<uint32_t>(bits & 0x80u) << 24 | std::bit_cast<uint32_t>(value));
}

inline float e4m3_to_float(uint8_t bits) {
  if (!is_nan_e4m3(bits)) return finite_e4m3_to_float(bits);
  return std::bit_cast<float>(static_cast<uint32_t>(bits & 0x80u) << 24 | 0x7fc00000u);
}

/// Saturates at ±448 (`cvt.rn.satfinite.e4m3x2.f32` of PTX).
inline uint8_t float_to_e4m3(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint8_t>((bits >> 24) & 0x80u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7f;           // NaN
  if (magnitude >= 0x43e00000u) return sign | 0x7eu;  // 448 and more
  if (magnitude < 0x3c800000u) {
    // Below 2^-6 the result is a multiple of 2^-9, which adding 2^14 leaves, rounded, in the lowest bits.
    const float shifted = std::bit_cast<float>(magnitude) + 0x1p14F;
    return sign | static_cast<uint8_t>(std::bit_cast<uint32_t>(shifted) - 0x46800000u);
  }
  // Rebias the exponent by −120; a carry out of the mantissa raises the exponent, to 448 at most.
  const uint32_t rounded = magnitude - 0x3c000000u + 0x7ffffu + ((magnitude >> 20) & 1u);
  return sign | static_cast<uint8_t>(rounded >> 20);
}

/// Reads element `i` of an array of `dtype`.
inline float load_float(const void* data, DType dtype, int64_t i) {
  if (dtype == DType::e4m3) return e4m3_to_float(static_cast<const uint8_t*>(data)[i]);
  if (dtype == DType::float32) {
    float value = 0;
    std::memcpy(&value, static_cast<const char*>(data) + 4 * i, 4);
    return value;
  }
  uint16_t bits = 0;
  std::memcpy(&bits, static_cast<const char*>(data) + 2 * i, 2);
  return dtype == DType::bfloat16 ? bfloat16_to_float(bits) : float16_to_float(bits);
}

/// Writes `value`, rounded to `dtype`, as element `i`.
inline void store_float(void* data, DType dtype, int64_t i, float value) {
  if (dtype == DType::e4m3) {
    static_cast<uint8_t*>(data)[i] = float_to_e4m3(value);
    return;
  }
  if (dtype == DType::float32) {
    std::memcpy(static_cast<char*>(data) + 4 * i, &value, 4);
    return;
  }
  const uint16_t bits = dtype == DType::bfloat16 ? float_to_bfloat16(value) : float_to_float16(value);
  std::memcpy(static_cast<char*>(data) + 2 * i, &bits, 2);
}

}  // namespace moerun
