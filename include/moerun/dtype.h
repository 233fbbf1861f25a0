#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace moerun {

/// Element type of weights and activations. Accumulation is always float32.
enum class DType : int32_t { float32, float16, bfloat16 };

constexpr size_t size_of(DType dtype) { return dtype == DType::float32 ? 4 : 2; }

constexpr std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return "float32";
    case DType::float16:
      return "float16";
    case DType::bfloat16:
      return "bfloat16";
  }
  return "?";
}

}  // namespace moerun
