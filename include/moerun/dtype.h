#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace moerun {

/// Element type of weights and activations. Accumulation is always float32. `e4m3` (OCP 8-bit floating point,
/// OFP8 revision 1.0: no infinity, largest 448) is of weights that have scales (moerun/fp8.h), and of keys
/// and values.
enum class DType : int32_t { float32, float16, bfloat16, e4m3 };

constexpr size_t size_of(DType dtype) { return dtype == DType::float32 ? 4 : dtype == DType::e4m3 ? 1 : 2; }

constexpr std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return "float32";
    case DType::float16:
      return "float16";
    case DType::bfloat16:
      return "bfloat16";
    case DType::e4m3:
      return "float8_e4m3fn";
  }
  return "?";
}

}  // namespace moerun
