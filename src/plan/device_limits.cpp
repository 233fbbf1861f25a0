#include "plan/device_limits.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "kernels/cuda/limits.h"

namespace moerun {

namespace {

class Refusals {
 public:
  void unless(bool holds, const char* key, int64_t value, const std::string& takes) {
    if (!holds) lines_.push_back(fmt::format("{}: {}: device: cuda takes {}", key, value, takes));
  }
  void whole_vectors(const char* key, int64_t value) {
    unless(value % limits::kVector == 0, key, value, fmt::format("multiples of {}", limits::kVector));
  }
  void add(std::string line) { lines_.push_back(std::move(line)); }
  std::vector<std::string> take() { return std::move(lines_); }

 private:
  std::vector<std::string> lines_;
};

void delta_nets(const DeltaShape& delta, Refusals& out) {
  using namespace limits;
  for (const auto& [key, dim] : {std::pair("config.json: linear_key_head_dim", delta.key_dim),
                                 std::pair("config.json: linear_value_head_dim", delta.value_dim)})
    out.unless(dim % kVector == 0 && dim <= kMaxDeltaDim, key, dim,
               fmt::format("multiples of {} up to {}", kVector, kMaxDeltaDim));
  out.unless(delta.conv_width <= kMaxConvWidth, "config.json: linear_conv_kernel_dim", delta.conv_width,
             fmt::format("at most {}", kMaxConvWidth));
}

}  // namespace

std::vector<std::string> device_refuses(const StepLimits& step, DenseWidths widths, const DeltaShape& delta) {
  using namespace limits;
  Refusals out;
  if (step.num_delta_layers > 0) delta_nets(delta, out);
  out.unless(step.block_size % kBlockTokens == 0, "memory.block_size", step.block_size,
             fmt::format("multiples of {}", kBlockTokens));
  out.unless(step.max_num_batched_tokens <= kMaxGridRows * kOrderedGemmRows,
             "scheduler.max_num_batched_tokens", step.max_num_batched_tokens,
             fmt::format("at most {}", kMaxGridRows * kOrderedGemmRows));
  out.unless(std::find(kHeadDims.begin(), kHeadDims.end(), step.head_dim) != kHeadDims.end(),
             "config.json: head_dim", step.head_dim, fmt::format("{}", fmt::join(kHeadDims, ", ")));
  const int64_t group = step.num_kv_heads > 0 ? step.num_heads / step.num_kv_heads : 0;
  out.unless(step.num_kv_heads > 0 && step.num_heads % step.num_kv_heads == 0 && group <= kMaxGroup,
             "config.json: num_attention_heads over num_key_value_heads", group,
             fmt::format("1 to {} query heads a key head", kMaxGroup));
  out.whole_vectors("config.json: hidden_size", step.hidden_size);
  out.unless(step.hidden_size <= kMaxNormCols, "config.json: hidden_size", step.hidden_size,
             fmt::format("at most {}", kMaxNormCols));
  out.unless(step.vocab_size <= kMaxVocab, "config.json: vocab_size", step.vocab_size,
             fmt::format("at most {}", kMaxVocab));
  out.whole_vectors("config.json: intermediate_size", widths.dense);
  out.whole_vectors("config.json: the shared expert's width", widths.shared);
  if (step.num_experts == 0) return out.take();
  out.whole_vectors("config.json: moe_intermediate_size", step.moe_intermediate_size);
  out.unless(step.num_experts <= kMaxExperts, "config.json: num_experts", step.num_experts,
             fmt::format("at most {}", kMaxExperts));
  out.unless(step.num_expert_groups <= kMaxRouterGroups, "config.json: n_group", step.num_expert_groups,
             fmt::format("at most {}", kMaxRouterGroups));
  constexpr int32_t kMaxK = std::min(kMaxRouterK, kMaxCombineK);
  out.unless(step.num_experts_per_tok <= kMaxK, "config.json: num_experts_per_tok", step.num_experts_per_tok,
             fmt::format("at most {}", kMaxK));
  return out.take();
}

}  // namespace moerun
