#include "model/blocks/experts.h"

#include <fmt/format.h>

namespace moerun {

ExpertsBlock::ExpertsBlock(const ModelParts& parts, DenseMlpBlock& shared_expert)
    : parts_(parts),
      shared_expert_(shared_expert),
      routed_(*parts.device, parts.routed, parts.part_rows(), parts.config->num_experts_per_tok) {
  Device& device = *parts.device;
  const ModelConfig& config = *parts.config;
  const ModelShard& shard = parts.shard;
  topk_weights_ = device.tensor(parts.part_rows(), config.num_experts_per_tok, DType::float32, "activations");
  if (config.shared_intermediate_size > 0)
    shared_ = device.tensor(parts.part_rows(), config.hidden_size, device.dtype(), "activations");

  const auto upload = [&](const std::vector<int32_t>& values) {
    if (values.empty()) return Ints{};
    const Ints out = device.ints(static_cast<int64_t>(values.size()), "expert map");
    device.copy_to_device(out.data, values.data(), values.size() * 4);
    return out;
  };
  slots_.resize(shard.rank_of_turn.empty() ? 1 : static_cast<size_t>(config.num_hidden_layers));
  for (ExpertSlots& slots : slots_)
    slots = {.local_slot = upload(shard.local_slot),
             .host_local_slot = shard.local_slot,
             .rank_of_turn = upload(shard.rank_of_turn),
             .host_rank_of_turn = shard.rank_of_turn,
             .num_local = shard.num_slots()};

  const std::vector<uint64_t> zeros(num_counts());
  expert_tokens_ = static_cast<uint64_t*>(device.allocate(zeros.size() * 8, "expert load"));
  device.copy_to_device(expert_tokens_, zeros.data(), zeros.size() * 8);
  device.synchronize();  // `zeros` goes
}

size_t ExpertsBlock::num_counts() const {
  return static_cast<size_t>(parts_.config->num_hidden_layers * parts_.config->num_experts);
}

std::vector<uint64_t> ExpertsBlock::expert_tokens() const {
  std::vector<uint64_t> counts(num_counts());
  parts_.device->copy_to_host(counts.data(), expert_tokens_, counts.size() * 8);
  return counts;
}

void ExpertsBlock::place(int64_t layer, std::vector<int32_t> local_slot, std::vector<int32_t> rank_of_turn) {
  ExpertSlots& slots = slots_.at(static_cast<size_t>(layer));
  slots.host_local_slot = std::move(local_slot);
  slots.host_rank_of_turn = std::move(rank_of_turn);
  const auto upload = [&](Ints to, const std::vector<int32_t>& values) {
    parts_.device->copy_to_device(to.data, values.data(), values.size() * 4);
  };
  upload(slots.local_slot, slots.host_local_slot);
  upload(slots.rank_of_turn, slots.host_rank_of_turn);
}

void ExpertsBlock::route(const Routed& tokens, const LayerWeights& layer) {
  const ModelConfig& config = *parts_.config;
  parts_.device->router({.x = tokens.x,
                         .gate = layer.router,
                         .bias = layer.router_bias,
                         .num_experts_per_tok = static_cast<int32_t>(config.num_experts_per_tok),
                         .rule = config.router,
                         .topk_ids = tokens.topk_ids,
                         .topk_weights = tokens.topk_weights});
}

void ExpertsBlock::run(const Step& step, size_t index, const LayerWeights& layer,
                       const AddRmsNormArgs& then) {
  Device& device = *parts_.device;
  ExpertExchange& exchange = *parts_.exchange;
  const ModelConfig& config = *parts_.config;
  const ExpertSlots& slots = slots_[slots_.size() > 1 ? index : 0];
  const int64_t n = step.part.count();
  const Routed tokens{.x = step.normed.first(n),
                      .topk_ids = routed_.of_layer(index, n),
                      .topk_weights = topk_weights_.first(n),
                      .slots = &slots};
  const bool has_shared = shared_.cols > 0;
  if (n > 0) route(tokens, layer);
  const Tensor sums = step.delta.first(n);
  const Dispatched here = exchange.dispatch(tokens, sums);
  const ExpertFfnArgs experts{
      .in = here.tokens,
      .gate_up = &layer.mlp.gate_up,
      .down = &layer.mlp.down,
      .slots = &slots,
      .out = here.partials,
      .partial_offsets = here.partial_offsets,
      .pairs = here.pairs,
      .expert_tokens = expert_tokens_ + static_cast<int64_t>(index) * config.num_experts};
  if (n > 0 && here.local && !has_shared) return device.expert_ffn_add_rms_norm(experts, then);
  if (here.tokens.x.rows > 0) device.expert_ffn(experts);
  if (has_shared) shared_expert_.run(step, layer.shared, shared_);  // while partial sums are on their way
  exchange.combine(sums);
  if (n == 0) return;
  if (has_shared)
    device.add_shared(
        {.y = shared_.first(n), .x = step.normed.first(n), .gate = layer.shared_gate, .sums = sums});
  device.add_rms_norm(then);
}

ExpertNames qwen_experts(const std::string& mlp) {
  return {.mlp = mlp,
          .newer_mlp = mlp,
          .gate = ".gate_proj.weight",
          .up = ".up_proj.weight",
          .down = ".down_proj.weight"};
}

void expert_tensors(const ModelConfig& config, const ExpertNames& names, int64_t layer, TensorList& out) {
  const int64_t hidden = config.hidden_size, width = config.moe_intermediate_size, count = config.num_experts;
  TensorSpec& router =
      out.matrix(names.mlp + ".gate.weight", count, hidden, Cut::whole, {Role::router, layer});
  if (config.router_float32) router.format.dtype = DType::float32;
  if (names.newer_mlp != names.mlp)
    router.stored.push_back({names.newer_mlp + ".gate.weight", {count, hidden}});
  const std::string stacks = names.newer_mlp + ".experts";
  for (int32_t expert = 0; expert < count; ++expert) {
    const std::string prefix = fmt::format("{}.experts.{}", names.mlp, expert);
    const auto add = [&](const char* name, int64_t rows, int64_t cols, Role role, const StoredAs& stacked) {
      TensorSpec& spec = out.matrix(prefix + name, rows, cols, Cut::expert, {role, layer, expert});
      if (!spec.format.is_fp8()) spec.stored.push_back(stacked);
    };
    // transformers ≥ 5 computes with stacks of all experts, gate above up, and can save them as they are. In
    // FP8 it saves them by themselves.
    const int64_t matrix = width * hidden;
    const StoredAs gates{stacks + ".gate_up_proj", {count, 2 * width, hidden}, 2 * expert * matrix};
    const StoredAs ups{gates.name, gates.shape, gates.first + matrix};
    add(names.gate, width, hidden, Role::gate, gates);
    add(names.up, width, hidden, Role::up, ups);
    add(names.down, hidden, width, Role::down,
        {stacks + ".down_proj", {count, hidden, width}, expert * matrix});
  }
}

}  // namespace moerun
