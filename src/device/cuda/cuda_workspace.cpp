#include "device/cuda/cuda_workspace.h"

#include <algorithm>

namespace moerun {

namespace {

constexpr size_t kMaxPartsBytes = size_t{64} << 20;
constexpr int64_t kMaxExpertTokens = 16384;
constexpr int64_t kMaxParts = 16;  // of K in linear_tree

}  // namespace

IndexUpload::IndexUpload(Arena& arena, cudaStream_t stream, int64_t room)
    : stream_(stream),
      room_(std::max<int64_t>(room, 1)),
      device_(static_cast<int32_t*>(arena.allocate(static_cast<size_t>(room_) * 4, "step plan"))),
      host_{PinnedBuffer(static_cast<size_t>(room_) * 4), PinnedBuffer(static_cast<size_t>(room_) * 4)} {}

const int32_t* IndexUpload::upload(std::span<const int32_t> indices) {
  if (static_cast<int64_t>(indices.size()) > room_)
    throw Error(fmt::format("{} rows are gathered at once; room was made for {}", indices.size(), room_));
  const size_t turn = next_;
  next_ = 1 - next_;
  CUDA_CHECK(cudaEventSynchronize(sent_[turn]));
  std::copy(indices.begin(), indices.end(), reinterpret_cast<int32_t*>(host_[turn].data()));
  CUDA_CHECK(
      cudaMemcpyAsync(device_, host_[turn].data(), indices.size_bytes(), cudaMemcpyHostToDevice, stream_));
  CUDA_CHECK(cudaEventRecord(sent_[turn], stream_));
  return device_;
}

CudaWorkspace::CudaWorkspace(Arena& arena, cudaStream_t stream, const StreamWait& wait, DType dtype,
                             const StepLimits& limits)
    : limits(limits),
      plans(arena, stream, limits),
      indices(arena, stream, limits.max_logit_rows),
      products(arena, stream, dtype),
      sampler(arena, stream, wait, limits),
      swap_space(stream, limits.num_host_blocks),
      row_copies(stream),
      states(stream),
      decode(decode_workspace_for(limits)) {
  decode.partials = static_cast<float*>(
      arena.allocate(static_cast<size_t>(decode.num_floats) * sizeof(float), "attention workspace"));
  const size_t arrivals_bytes = static_cast<size_t>(decode.num_arrivals) * sizeof(int32_t);
  decode.arrivals = static_cast<int32_t*>(arena.allocate(arrivals_bytes, "attention workspace"));
  CUDA_CHECK(cudaMemsetAsync(decode.arrivals, 0, arrivals_bytes, stream));
  const size_t element = size_of(dtype);
  parts_bytes =
      std::min(static_cast<size_t>(kMaxParts * limits.max_num_batched_tokens * limits.hidden_size) * element,
               kMaxPartsBytes);
  parts = arena.allocate(parts_bytes, "workspace");
  if (limits.num_experts == 0) return;
  const int64_t tokens = std::max(limits.max_routed_tokens, limits.max_num_batched_tokens);
  expert_tokens = std::clamp<int64_t>(tokens, 1, kMaxExpertTokens);
  const auto k = static_cast<int32_t>(limits.num_experts_per_tok);
  const auto num_experts = static_cast<int32_t>(limits.num_experts);
  const auto pairs = static_cast<size_t>(expert_tokens * k);
  experts = moe_plan_in(arena.allocate(moe_plan_bytes(expert_tokens, k, num_experts), "expert workspace"),
                        expert_tokens, k, num_experts);
  expert_h = arena.allocate(std::max(pairs * static_cast<size_t>(limits.moe_intermediate_size) * element,
                                     fp8_rows_bytes(expert_tokens * k, limits.moe_intermediate_size)),
                            "expert workspace");
  expert_y = arena.allocate(pairs * static_cast<size_t>(limits.hidden_size) * element, "expert workspace");
}

}  // namespace moerun
