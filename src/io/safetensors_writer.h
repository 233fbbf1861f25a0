#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "moerun/dtype.h"

namespace moerun {

/// A tensor of a safetensors file that is to be written.
struct NewTensor {
  std::string name;
  DType dtype = DType::float32;
  std::vector<int64_t> shape;

  uint64_t bytes() const;
};

/// The order in which they stand in a file: the widest elements first, as the safetensors library writes
/// them, so that every tensor is aligned.
bool stands_before(const NewTensor& a, const NewTensor& b);

/// What stands in front of the tensors' bytes: the length, and the header of `tensors` in their order.
std::string safetensors_header(const std::vector<NewTensor>& tensors);

}  // namespace moerun
