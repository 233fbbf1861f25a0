#include "device/cuda/cuda_plan.h"

#include <algorithm>

namespace moerun {

PlanUpload::PlanUpload(Arena& arena, cudaStream_t stream, const StepLimits& limits)
    : room_{limits.max_num_batched_tokens, limits.max_num_seqs,
            (limits.max_model_len + limits.block_size - 1) / limits.block_size, limits.block_size},
      stream_(stream),
      device_(static_cast<int32_t*>(arena.allocate(static_cast<size_t>(room_.ints()) * 4, "step plan"))),
      host_{PinnedBuffer(static_cast<size_t>(room_.ints()) * 4),
            PinnedBuffer(static_cast<size_t>(room_.ints()) * 4)} {}

DevicePlan PlanUpload::upload(const StepPlan& plan) {
  DevicePlan out{.num_tokens = plan.num_tokens(),
                 .num_seqs = plan.num_seqs(),
                 .num_prefill_seqs = plan.num_prefill_seqs};
  for (size_t s = 0; s < plan.context_lens.size(); ++s) {
    out.max_context_len = std::max(out.max_context_len, plan.context_lens[s]);
    const int64_t context = plan.context_lens[s], query = plan.cu_seqlens_q[s + 1] - plan.cu_seqlens_q[s];
    out.max_query_len = std::max(out.max_query_len, static_cast<int32_t>(query));
    if (s < static_cast<size_t>(plan.num_prefill_seqs))
      out.prefill_pairs += query * (2 * context - query + 1) / 2;
    else
      out.decode_keys += context;
  }
  if (out.num_tokens > room_.tokens || out.num_seqs > room_.seqs ||
      out.max_context_len > room_.blocks * room_.block_size)
    throw Error(
        fmt::format("a step of {} tokens, {} sequences and contexts of {}; room was made for {}, {} and {}",
                    out.num_tokens, out.num_seqs, out.max_context_len, room_.tokens, room_.seqs,
                    room_.blocks * room_.block_size));
  constexpr int32_t step = DevicePlan::kContextStep;
  out.max_context_len = (out.max_context_len + step - 1) / step * step;
  out.max_blocks = static_cast<int32_t>(
      std::min(room_.blocks, (out.max_context_len + room_.block_size - 1) / room_.block_size));

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
  out.tokens = pack(plan.tokens, room_.tokens);
  out.positions = pack(plan.positions, room_.tokens);
  out.slot_mapping = pack(plan.slot_mapping, room_.tokens);
  out.cu_seqlens_q = pack(plan.cu_seqlens_q, room_.seqs + 1);
  out.context_lens = pack(plan.context_lens, room_.seqs);
  out.state_slots = pack(plan.state_slots, room_.seqs);
  if (static_cast<int64_t>(plan.state_saves.size()) + 1 > room_.saves())
    throw Error(fmt::format("a step saves {} states; room was made for {}", plan.state_saves.size() / 3,
                            room_.saves() / 3 - 1));
  host[at + static_cast<int64_t>(plan.state_saves.size())] = -1;  // the end, which graphs read
  out.state_saves = pack(plan.state_saves, room_.saves());
  // The table comes last and is the largest: only what is used of it travels.
  const auto used = static_cast<ptrdiff_t>(std::min(plan.max_blocks, out.max_blocks));
  for (ptrdiff_t s = 0; s < out.num_seqs; ++s)
    std::copy_n(plan.block_table.begin() + s * plan.max_blocks, used, host + at + s * out.max_blocks);
  out.block_table = {device_ + at, int64_t{out.num_seqs} * out.max_blocks};
  const auto bytes = static_cast<size_t>(at + out.block_table.size) * 4;
  CUDA_CHECK(cudaMemcpyAsync(device_, host, bytes, cudaMemcpyHostToDevice, stream_));
  CUDA_CHECK(cudaEventRecord(sent_[turn], stream_));
  return out;
}

}  // namespace moerun
