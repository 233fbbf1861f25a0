#include "model/qwen3_moe.h"

#include <algorithm>
#include <cmath>

#include "model/rope.h"

namespace moerun {

/// One step's views of the buffers.
struct Qwen3Moe::Step {
  const StepPlan* host_plan = nullptr;
  DevicePlan plan;
  TokenPart part;
  Tensor residual, delta, normed;  // [part.padded, hidden]
  Tensor hidden;                   // [part.padded · tensor, hidden]

  /// How attention, experts and dense layers end: delta joins the residual, and the sum is normed.
  AddRmsNormArgs norm(const Tensor& weight, float eps) const {
    return {.residual = residual, .delta = delta, .weight = weight, .eps = eps, .out = normed};
  }
};

Qwen3Moe::Qwen3Moe(const ModelConfig& config, const ModelShard& shard, const StepLimits& limits, Parts parts)
    : config_(config), shard_(shard), limits_(limits), parts_(parts), step_(std::make_unique<Step>()) {
  Device& device = *parts_.device;
  const DType dtype = device.dtype();
  const int64_t part = part_of_step(limits.max_num_batched_tokens, shard.tensor, 0).padded;
  const int64_t all = part * shard.tensor, hidden = config.hidden_size;
  const char* const what = "activations";
  residual_ = device.tensor(part, hidden, dtype, what);
  delta_ = device.tensor(part, hidden, dtype, what);
  normed_ = device.tensor(part, hidden, dtype, what);
  hidden_ = device.tensor(all, hidden, dtype, what);
  qkv_ = device.tensor(all, shard.qkv_width(config), dtype, what);
  q_ = device.tensor(all, shard.num_heads(config) * config.head_dim, dtype, what);
  heads_ = device.tensor(all, shard.num_heads(config) * config.head_dim, dtype, what);
  topk_ids_ = device.ints(part * config.num_experts_per_tok, what);
  topk_weights_ = device.tensor(part, config.num_experts_per_tok, DType::float32, what);
  logit_rows_ = device.tensor(limits.max_logit_rows, hidden, dtype, what);
  logits_ = device.tensor(limits.max_logit_rows, config.vocab_size, DType::float32, what);
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
    if (!config.is_sparse(layer) && !dense_.data) {
      dense_gate_up_ = device.tensor(part, 2 * config.intermediate_size, dtype, what);
      dense_ = device.tensor(part, config.intermediate_size, dtype, what);
    }

  const RopeTables tables = rope_tables(config, limits.max_model_len);
  const auto upload = [&](const std::vector<float>& values) {
    const Tensor out =
        device.tensor(limits.max_model_len, config.head_dim / 2, DType::float32, "rotary tables");
    device.copy_to_device(out.data, values.data(), out.bytes());
    device.synchronize();  // `values` may go
    return out;
  };
  cos_ = upload(tables.cos);
  sin_ = upload(tables.sin);

  const auto upload_ints = [&](const std::vector<int32_t>& values) {
    if (values.empty()) return Ints{};
    const Ints out = device.ints(static_cast<int64_t>(values.size()), "expert map");
    device.copy_to_device(out.data, values.data(), values.size() * 4);
    return out;
  };
  slots_.resize(shard.rank_of_turn.empty() ? 1 : static_cast<size_t>(config.num_hidden_layers));
  for (ExpertSlots& slots : slots_)
    slots = {.local_slot = upload_ints(shard_.local_slot),
             .host_local_slot = shard.local_slot,
             .rank_of_turn = upload_ints(shard_.rank_of_turn),
             .host_rank_of_turn = shard.rank_of_turn,
             .num_local = shard.num_slots()};

  const std::vector<uint64_t> zeros(num_expert_counts());
  expert_tokens_ = static_cast<uint64_t*>(device.allocate(zeros.size() * 8, "expert load"));
  device.copy_to_device(expert_tokens_, zeros.data(), zeros.size() * 8);
  device.synchronize();  // `zeros` goes
}

Qwen3Moe::~Qwen3Moe() = default;

size_t Qwen3Moe::num_expert_counts() const {
  return static_cast<size_t>(config_.num_hidden_layers * config_.num_experts);
}

std::vector<uint64_t> Qwen3Moe::expert_tokens() const {
  std::vector<uint64_t> counts(num_expert_counts());
  parts_.device->copy_to_host(counts.data(), expert_tokens_, counts.size() * 8);
  return counts;
}

void Qwen3Moe::place_experts(int64_t layer, std::vector<int32_t> local_slot,
                             std::vector<int32_t> rank_of_turn) {
  ExpertSlots& slots = slots_.at(static_cast<size_t>(layer));
  slots.host_local_slot = std::move(local_slot);
  slots.host_rank_of_turn = std::move(rank_of_turn);
  const auto upload = [&](Ints to, const std::vector<int32_t>& values) {
    parts_.device->copy_to_device(to.data, values.data(), values.size() * 4);
  };
  upload(slots.local_slot, slots.host_local_slot);
  upload(slots.rank_of_turn, slots.host_rank_of_turn);
}

size_t Qwen3Moe::block_bytes() const {
  return static_cast<size_t>(
      key_value_block_bytes(config_, shard_, limits_.block_size, parts_.device->dtype()));
}

void Qwen3Moe::allocate_cache(int64_t num_blocks) {
  const auto kv_heads = shard_.num_kv_heads(config_);
  const auto half = [&] {
    return parts_.device->tensor(num_blocks * kv_heads * limits_.block_size, config_.head_dim,
                                 parts_.device->dtype(), "keys and values");
  };
  for (int64_t layer = 0; layer < config_.num_hidden_layers; ++layer)
    cache_.push_back({.k = half(),
                      .v = half(),
                      .num_kv_heads = static_cast<int32_t>(kv_heads),
                      .block_size = static_cast<int32_t>(limits_.block_size),
                      .head_dim = static_cast<int32_t>(config_.head_dim)});
}

void Qwen3Moe::submit(const StepPlan& plan, const std::vector<int32_t>& tokens_of_rank) {
  Device& device = *parts_.device;
  if (!plan.swap_out.empty()) device.swap_blocks(cache_, plan.swap_out, Device::Swap::out);
  if (!plan.swap_in.empty()) device.swap_blocks(cache_, plan.swap_in, Device::Swap::in);
  Step& step = *step_;
  step = {.host_plan = &plan,
          .plan = device.upload(plan),
          .part = part_of_step(plan.num_tokens(), shard_.tensor, shard_.tensor_rank)};
  step.residual = residual_.first(step.part.padded);
  step.delta = delta_.first(step.part.padded);
  step.normed = normed_.first(step.part.padded);
  step.hidden = hidden_.first(step.part.padded * shard_.tensor);
  parts_.exchange->begin_step(tokens_of_rank);

  const StepShape shape{
      .num_tokens = plan.num_tokens(),
      .num_seqs = plan.num_seqs(),
      .num_prefill_seqs = plan.num_prefill_seqs,
      .max_query_len = step.plan.max_query_len,
      .max_context_len = step.plan.max_context_len,
      .num_exchange_tokens = *std::max_element(tokens_of_rank.begin(), tokens_of_rank.end())};
  if (parts_.tp->capturable() && parts_.exchange->capturable())
    device.run(shape, [&] { layers(step); });
  else
    layers(step);
}

StepResult Qwen3Moe::collect() { return logits(*step_, *step_->host_plan); }

void Qwen3Moe::layers(const Step& step) {
  Device& device = *parts_.device;
  const auto eps = static_cast<float>(config_.rms_norm_eps);
  const bool any = step.plan.num_tokens > 0;
  const std::vector<LayerWeights>& layers = weights_.layers;
  if (any) {
    device.embed(weights_.embedding, {step.plan.tokens.data + step.part.begin, step.part.count()},
                 step.residual.first(step.part.count()));
    device.rms_norm(step.residual, layers.front().input_norm, eps, step.normed);
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    const bool last = i + 1 == layers.size();
    const AddRmsNormArgs then = step.norm(last ? weights_.final_norm : layers[i + 1].input_norm, eps);
    if (any) attention(step, layers[i], cache_[i]);
    if (layers[i].sparse)
      sparse_mlp(step, i, then);
    else if (any)
      dense_mlp(step, layers[i], then);
  }
}

void Qwen3Moe::attention(const Step& step, const LayerWeights& layer, const KvLayer& kv) {
  Device& device = *parts_.device;
  const int64_t n = step.plan.num_tokens;
  const auto num_heads = static_cast<int32_t>(shard_.num_heads(config_));
  const auto eps = static_cast<float>(config_.rms_norm_eps);
  const bool whole = shard_.tensor == 1;
  const Tensor x = whole ? step.normed : step.hidden;
  if (!whole) parts_.tp->all_gather(step.normed, step.hidden);

  device.linear(x.first(n), layer.qkv, layer.qkv_bias.data ? &layer.qkv_bias : nullptr, qkv_.first(n));
  device.rope_and_cache(step.plan, {.qkv = qkv_.first(n),
                                    .q_norm = layer.q_norm,
                                    .k_norm = layer.k_norm,
                                    .cos = cos_,
                                    .sin = sin_,
                                    .q = q_.first(n),
                                    .kv = kv,
                                    .num_heads = num_heads,
                                    .eps = eps});
  device.attention(step.plan, {.q = q_.first(n),
                               .kv = kv,
                               .out = heads_.first(n),
                               .num_heads = num_heads,
                               .scale = 1.0F / std::sqrt(static_cast<float>(config_.head_dim))});
  const int32_t chunks = output_chunks(config_) / shard_.tensor;
  const AddRmsNormArgs then = step.norm(layer.post_attention_norm, eps);
  if (whole && !layer.output_bias.data)
    return device.linear_tree_add_rms_norm(heads_.first(n), layer.output, chunks, then);
  device.linear_tree(heads_.first(n), layer.output, chunks, (whole ? step.delta : step.hidden).first(n));
  if (!whole) parts_.tp->reduce_scatter(step.hidden, step.delta);
  if (layer.output_bias.data) device.add_bias(step.delta, layer.output_bias);
  device.add_rms_norm(then);
}

void Qwen3Moe::sparse_mlp(const Step& step, size_t index, const AddRmsNormArgs& then) {
  Device& device = *parts_.device;
  ExpertExchange& exchange = *parts_.exchange;
  const LayerWeights& layer = weights_.layers[index];
  const ExpertSlots& slots = slots_[slots_.size() > 1 ? index : 0];
  const int64_t n = step.part.count(), k = config_.num_experts_per_tok;
  const Routed tokens{.x = step.normed.first(n),
                      .topk_ids = {topk_ids_.data, n * k},
                      .topk_weights = topk_weights_.first(n),
                      .slots = &slots};
  if (n > 0)
    device.router({.x = tokens.x,
                   .gate = layer.router,
                   .num_experts_per_tok = static_cast<int32_t>(k),
                   .norm_topk_prob = config_.norm_topk_prob,
                   .topk_ids = tokens.topk_ids,
                   .topk_weights = tokens.topk_weights});
  const Routed here = exchange.dispatch(tokens);
  const Tensor sums = step.delta.first(n);
  const ExpertFfnArgs experts{
      .in = here,
      .gate_up = &layer.gate_up,
      .down = &layer.down,
      .slots = &slots,
      .out = exchange.partials(sums),
      .partial_offsets = exchange.partial_offsets(),
      .pairs = exchange.wants_pairs(),
      .expert_tokens = expert_tokens_ + static_cast<int64_t>(index) * config_.num_experts};
  if (n > 0 && exchange.local()) return device.expert_ffn_add_rms_norm(experts, then);
  if (here.x.rows > 0) device.expert_ffn(experts);
  exchange.combine(sums);
  if (n > 0) device.add_rms_norm(then);
}

void Qwen3Moe::dense_mlp(const Step& step, const LayerWeights& layer, const AddRmsNormArgs& then) {
  Device& device = *parts_.device;
  const int64_t n = step.part.count();
  if (n == 0) return;
  device.linear(step.normed.first(n), layer.gate_up, nullptr, dense_gate_up_.first(n));
  device.silu_mul(dense_gate_up_.first(n), dense_.first(n));
  device.linear(dense_.first(n), layer.down, nullptr, step.delta.first(n));
  device.add_rms_norm(then);
}

StepResult Qwen3Moe::logits(const Step& step, const StepPlan& plan) {
  // A rank scores the rows whose hidden state it holds: nothing crosses tp, and no row is cut.
  StepResult out;
  for (size_t i = 0; i < plan.logit_rows.size(); ++i)
    if (const int32_t token = plan.logit_rows[i].token_index;
        token >= step.part.begin && token < step.part.end)
      out.rows.push_back(static_cast<int32_t>(i));

  Device& device = *parts_.device;
  std::vector<int32_t> tokens;
  std::vector<LogitRow> rows;
  for (size_t begin = 0; begin < out.rows.size(); begin += static_cast<size_t>(limits_.max_logit_rows)) {
    const size_t end = std::min(out.rows.size(), begin + static_cast<size_t>(limits_.max_logit_rows));
    tokens.clear(), rows.clear();
    for (size_t i = begin; i < end; ++i) {
      rows.push_back(plan.logit_rows[static_cast<size_t>(out.rows[i])]);
      tokens.push_back(rows.back().token_index - static_cast<int32_t>(step.part.begin));
    }
    const auto count = static_cast<int64_t>(rows.size());
    device.gather_rows(step.normed, tokens, logit_rows_.first(count));
    device.linear(logit_rows_.first(count), weights_.lm_head, nullptr, logits_.first(count));
    const std::vector<TokenResult> results = device.sample(logits_.first(count), rows, plan);
    out.results.insert(out.results.end(), results.begin(), results.end());
  }
  return out;
}

}  // namespace moerun
