#include "model/blocks/routed_ids.h"

namespace moerun {

RoutedIds::RoutedIds(Device& device, const RoutedShape& shape, int64_t rows, int64_t experts_per_token)
    : device_(device), shape_(shape), rows_(rows), experts_per_token_(experts_per_token) {
  const auto places = static_cast<int64_t>(shape.layers.size());
  ids_ = device.ints(std::max<int64_t>(places, 1) * rows * experts_per_token, "activations");
  if (!shape.kept()) return;
  host_ = device.host_tensor(places, rows * experts_per_token, DType::float32, "routed experts");
  place_of_layer_.resize(static_cast<size_t>(shape.layers.back()) + 1);
  for (size_t place = 0; place < shape.layers.size(); ++place)
    place_of_layer_[static_cast<size_t>(shape.layers[place])] = static_cast<int32_t>(place);
}

Ints RoutedIds::of_layer(size_t layer, int64_t n) const {
  const int64_t place = shape_.kept() ? place_of_layer_.at(layer) : 0;
  return {ids_.data + place * rows_ * experts_per_token_, n * experts_per_token_};
}

void RoutedIds::begin_copy(int64_t n) {
  if (!shape_.kept() || n == 0) return;
  device_.begin_copy_to_host({.host = host_.data,
                              .device = ids_.data,
                              .rows = static_cast<int64_t>(shape_.layers.size()),
                              .row_bytes = static_cast<size_t>(n * experts_per_token_) * sizeof(int32_t),
                              .stride = static_cast<size_t>(rows_ * experts_per_token_) * sizeof(int32_t)});
}

namespace {

/// [layers, n, k] int32 → [n, layers, k] of ids.
template <typename Id>
void narrow(const int32_t* from, int64_t layers, int64_t n, int64_t k, uint8_t* out) {
  auto* const to = reinterpret_cast<Id*>(out);
  for (int64_t layer = 0; layer < layers; ++layer)
    for (int64_t token = 0; token < n; ++token) {
      Id* const ids = to + (token * layers + layer) * k;
      for (int64_t i = 0; i < k; ++i) ids[i] = static_cast<Id>(*from++);
    }
}

}  // namespace

std::vector<uint8_t> RoutedIds::take(int64_t n) const {
  std::vector<uint8_t> out(static_cast<size_t>(n) * shape_.token_bytes());
  const auto* const from = static_cast<const int32_t*>(host_.data);
  const auto layers = static_cast<int64_t>(shape_.layers.size());
  if (shape_.id_bytes() == 1)
    narrow<uint8_t>(from, layers, n, experts_per_token_, out.data());
  else
    narrow<uint16_t>(from, layers, n, experts_per_token_, out.data());
  return out;
}

}  // namespace moerun
