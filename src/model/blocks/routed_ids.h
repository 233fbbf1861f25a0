#pragma once
#include <cstdint>
#include <vector>

#include "moerun/device.h"
#include "moerun/routed_shape.h"

namespace moerun {

/// Where routers leave the experts that they chose: one place for all layers, or where a shape is to be kept
/// (`output.routed_experts`) one for each, which go to the host when the step's layers are done. Thread
/// contract: the engine thread.
class RoutedIds {
 public:
  /// For `rows` tokens at most. `shape` may keep nothing; `experts_per_token` counts then too.
  RoutedIds(Device& device, const RoutedShape& shape, int64_t rows, int64_t experts_per_token);

  /// Room for the ids of `n` tokens in a layer.
  Ints of_layer(size_t layer, int64_t n) const;
  /// Enqueues the copy of those of the step's `n` tokens to the host.
  void begin_copy(int64_t n);
  /// They are there, [n] of RoutedShape, after the device was waited for; empty where nothing is kept.
  std::vector<uint8_t> take(int64_t n) const;

 private:
  Device& device_;
  RoutedShape shape_;
  int64_t rows_, experts_per_token_;
  std::vector<int32_t> place_of_layer_;  // among those that are kept
  Ints ids_;                             // [places, rows, experts_per_token]
  Tensor host_;                          // [places, n · experts_per_token] int32, close together
};

}  // namespace moerun
