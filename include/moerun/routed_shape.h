#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "moerun/model_config.h"

namespace moerun {

/// What is kept of each token for `output.routed_experts`: the ids of the experts that the router of each
/// layer with experts chose, best first, [layers, experts_per_token] of uint8, or of uint16 where ids or
/// `none()` would not fit.
struct RoutedShape {
  std::vector<int32_t> layers;  ///< with experts, ascending; empty: nothing is kept
  int32_t experts_per_token = 0, num_experts = 0;

  bool kept() const { return !layers.empty(); }
  size_t id_bytes() const { return num_experts <= UINT8_MAX ? 1 : 2; }
  /// In place of ids where a token went through no layer: an answer's last.
  uint16_t none() const { return id_bytes() == 1 ? UINT8_MAX : UINT16_MAX; }
  size_t ids_of_token() const { return layers.size() * static_cast<size_t>(experts_per_token); }
  size_t token_bytes() const { return ids_of_token() * id_bytes(); }

  bool operator==(const RoutedShape&) const = default;
};

/// Of a model's tokens.
inline RoutedShape routed_shape(const ModelConfig& config) {
  RoutedShape shape{.experts_per_token = static_cast<int32_t>(config.num_experts_per_tok),
                    .num_experts = static_cast<int32_t>(config.num_experts)};
  for (int32_t layer = 0; layer < config.num_hidden_layers; ++layer)
    if (config.is_sparse(layer)) shape.layers.push_back(layer);
  return shape;
}

}  // namespace moerun
