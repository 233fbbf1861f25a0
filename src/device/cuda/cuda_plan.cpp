#include "device/cuda/cuda_plan.h"

#include <algorithm>

namespace moerun {

PlanUpload::PlanUpload(Arena& arena, cudaStream_t stream, const StepLimits& limits)
    : room_{limits.max_num_batched_tokens, limits.max_num_seqs,
            (limits.max_model_len + limits.block_size - 1) / limits.block_size},
      stream_(stream),
      device_(static_cast<int32_t*>(arena.allocate(static_cast<size_t>(room_.ints()) * 4, "step plan"))),
      host_{PinnedBuffer(static_cast<size_t>(room_.ints()) * 4),
            PinnedBuffer(static_cast<size_t>(room_.ints()) * 4)} {}

DevicePlan PlanUpload::upload(const StepPlan& plan) {
  if (plan.num_tokens() > room_.tokens || plan.num_seqs() > room_.seqs || plan.max_blocks > room_.blocks)
    throw Error(fmt::format(
        "a step of {} tokens, {} sequences and {} blocks a sequence; room was made for {}, {} and {}",
        plan.num_tokens(), plan.num_seqs(), plan.max_blocks, room_.tokens, room_.seqs, room_.blocks));
  const size_t turn = next_;
  next_ = 1 - next_;
  CUDA_CHECK(cudaEventSynchronize(sent_[turn]));
  auto* const host = reinterpret_cast<int32_t*>(host_[turn].data());
  int64_t at = 0;
  // Each array starts at the same place whatever the step's size.
  const auto pack = [&](const std::vector<int32_t>& values, int64_t room) {
    std::copy(values.begin(), values.end(), host + at);
    const Ints ints{device_ + at, static_cast<int64_t>(values.size())};
    at += Room::padded(room);
    return ints;
  };
  DevicePlan out;
  out.tokens = pack(plan.tokens, room_.tokens);
  out.positions = pack(plan.positions, room_.tokens);
  out.slot_mapping = pack(plan.slot_mapping, room_.tokens);
  out.cu_seqlens_q = pack(plan.cu_seqlens_q, room_.seqs + 1);
  out.context_lens = pack(plan.context_lens, room_.seqs);
  const int64_t table = at;
  out.block_table = pack(plan.block_table, room_.seqs * room_.blocks);
  // The table comes last and is the largest: only what is used of it travels.
  const auto bytes = static_cast<size_t>(table + static_cast<int64_t>(plan.block_table.size())) * 4;
  CUDA_CHECK(cudaMemcpyAsync(device_, host, bytes, cudaMemcpyHostToDevice, stream_));
  CUDA_CHECK(cudaEventRecord(sent_[turn], stream_));

  out.num_tokens = plan.num_tokens();
  out.num_seqs = plan.num_seqs();
  out.num_prefill_seqs = plan.num_prefill_seqs;
  out.max_blocks = plan.max_blocks;
  for (int32_t s = 0; s < plan.num_seqs(); ++s) {
    const auto i = static_cast<size_t>(s);
    out.max_context_len = std::max(out.max_context_len, plan.context_lens[i]);
    out.max_query_len = std::max(out.max_query_len, plan.cu_seqlens_q[i + 1] - plan.cu_seqlens_q[i]);
  }
  return out;
}

}  // namespace moerun
