#include "device/cuda/cuda_states.h"

#include <array>

namespace moerun {

namespace {

/// What a slot has of a layer.
std::array<Tensor, 2> parts_of(const DeltaState& state, int32_t slot) {
  const auto part = [&](const Tensor& of, int64_t rows) { return of.slice(slot * rows, (slot + 1) * rows); };
  return {part(state.conv, state.conv_rows()), part(state.memory, state.memory_rows())};
}

}  // namespace

char* SlotCopies::host_slot(int32_t slot, size_t bytes) {
  const auto index = static_cast<size_t>(slot);
  if (index >= host_.size()) host_.resize(index + 1);
  if (!host_[index]) try {
      host_[index] = std::make_unique<PinnedBuffer>(bytes);
    } catch (const Error& error) {
      throw Error(
          fmt::format("the host has no memory left for preempted sequences: lower memory.swap_space_gib ({})",
                      error.what()));
    }
  return host_[index]->data();
}

void SlotCopies::swap(std::span<const DeltaState> states, std::span<const int32_t> pairs, Device::Swap way) {
  size_t bytes = 0;
  for (const DeltaState& state : states)
    for (const Tensor& part : parts_of(state, 0)) bytes += part.bytes();
  for (size_t i = 0; i < pairs.size(); i += 2) {
    char* host = host_slot(pairs[i + 1], bytes);
    for (const DeltaState& state : states)
      for (const Tensor& part : parts_of(state, pairs[i])) {
        if (way == Device::Swap::out)
          CUDA_CHECK(cudaMemcpyAsync(host, part.data, part.bytes(), cudaMemcpyDeviceToHost, stream_));
        else
          CUDA_CHECK(cudaMemcpyAsync(part.data, host, part.bytes(), cudaMemcpyHostToDevice, stream_));
        host += part.bytes();
      }
  }
}

void SlotCopies::copy(std::span<const DeltaState> states, std::span<const int32_t> pairs) {
  for (size_t i = 0; i < pairs.size(); i += 2)
    for (const DeltaState& state : states) {
      const auto from = parts_of(state, pairs[i]), to = parts_of(state, pairs[i + 1]);
      for (size_t part = 0; part < from.size(); ++part)
        CUDA_CHECK(cudaMemcpyAsync(to[part].data, from[part].data, from[part].bytes(),
                                   cudaMemcpyDeviceToDevice, stream_));
    }
}

}  // namespace moerun
