#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "job/faults.h"
#include "moerun/dtype.h"

namespace moerun {

/// Where a tensor lies in a file.
struct TensorEntry {
  DType dtype = DType::float32;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  ///< bytes from the start of the file
};

/// What the format calls the types that are read and written here.
struct StoredDType {
  const char* name;
  DType dtype;
};
inline constexpr StoredDType kStoredDTypes[] = {
    {"BF16", DType::bfloat16}, {"F16", DType::float16}, {"F32", DType::float32}, {"F8_E4M3", DType::e4m3}};

namespace safetensors_limits {
constexpr uint64_t kHeaderBytes = 32u << 20;  ///< 18,867 tensors (Qwen3-30B-A3B) take 2.5 MB
constexpr size_t kDimensions = 8;
constexpr uint64_t kElements = uint64_t{1} << 48;
}  // namespace safetensors_limits

/// Reads the header of a safetensors file of `size` bytes (github.com/huggingface/safetensors: eight bytes of
/// length, a JSON object, the tensors' bytes without holes). Every number is checked before it is used; what
/// is wrong goes to `faults` with the file's name, and such a tensor is left out.
std::map<std::string, TensorEntry> read_safetensors_header(const std::string& path, const char* data,
                                                           uint64_t size, Faults& faults);

}  // namespace moerun
