#pragma once
#include <cstdint>

#include "moerun/host_device.h"

namespace moerun {

// Products of FP8 weights: what every device does, so that it is written once.
//
// A weight is W[n, k] = e4m3 value · scale(n, g), with g = k / kScaleGroup: a scale belongs to a row and a
// group of 128 along K; the last group may be shorter. Blocks of 128 × 128, scales of whole rows, and parts
// of matrices that begin or end inside a block are all of this form.
//
// An activation row x is quantised by groups of 128 along K too, from its values as they are stored (rounded
// to the device's dtype): amax is the largest magnitude of the group, its scale is activation_scale(amax) and
// its values are e4m3(x / scale), a float32 division rounded to nearest, then rounded to e4m3 to nearest even
// and saturated at ±448. This is done whatever a checkpoint says of groups: one scale a token is coarser, and
// would tie together the shards of the output projection.
//
//   acc = 0;  for g ascending:  acc = fma(sum_g, weight_scale(n, g) · activation_scale(m, g), acc)
//
// in float32, with the product of both scales rounded by itself. sum_g is the sum over the group of the
// products of e4m3 values: on the CPU one chain of float32 fused multiply-adds ascending in k, from 0; on
// CUDA what `wgmma` leaves after the group's 128 of K, from 0 (it keeps fewer bits). The result is rounded
// where a 16-bit product's is: after a bias was added to acc, where there is one.
//
// expert_ffn quantises its input rows, then h = silu(gate)·up after it was rounded to dtype, by groups of 128
// of the expert's width: the bits of silu_mul into a buffer followed by a product.

inline constexpr int64_t kScaleGroup = 128;  ///< elements of K that share a scale
inline constexpr float kE4m3Max = 448;

constexpr int64_t scale_groups(int64_t in_features) { return (in_features + kScaleGroup - 1) / kScaleGroup; }

/// What a group of activations with this largest magnitude is divided by. A group of zeros keeps 1; so does
/// one so small that its scale would be no normal number, and which then becomes zeros.
MOERUN_HOST_DEVICE inline float activation_scale(float amax) {
  constexpr float kLeast = 0x1p-100F;
  return amax < kLeast ? 1.0F : amax / kE4m3Max;
}

}  // namespace moerun
