#pragma once
#include <cstdint>

#include "moerun/host_device.h"

namespace moerun {

/// Weights that come from no file (`load_format: dummy`): a function of the tensor's name and the element's
/// place in the whole tensor, so that they are the same in every layout, and so that a GPU can make its own.
struct DummyWeights {
  uint64_t key = 0;   ///< a hash of the tensor's name
  int64_t first = 0;  ///< index in the whole tensor of the part's first element
  float scale = 0;    ///< values are uniform in [−scale, scale)
  float offset = 0;   ///< added to each (norm weights are around 1)
};

/// Element `index` of the whole tensor. SplitMix64 (Steele et al., "Fast Splittable Pseudorandom Number
/// Generators", OOPSLA 2014) of key and index; the top 24 bits make the float, so it is exact.
MOERUN_HOST_DEVICE inline float dummy_weight(const DummyWeights& dummy, int64_t index) {
  uint64_t z = dummy.key + (static_cast<uint64_t>(index) + 1) * 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  z ^= z >> 31;
  const float unit = static_cast<float>(static_cast<int32_t>(z >> 40) - (1 << 23)) * (1.0f / (1 << 23));
  return unit * dummy.scale + dummy.offset;
}

}  // namespace moerun
