#include "model/model.h"

#include <algorithm>

namespace moerun {

namespace {

Tensor hidden_rows(const ModelParts& parts, int64_t rows) {
  return parts.device->tensor(rows, parts.config->hidden_size, parts.device->dtype(), "activations");
}

}  // namespace

Model::Model(ModelParts parts)
    : parts_(std::move(parts)),
      residual_(hidden_rows(parts_, parts_.part_rows())),
      delta_(hidden_rows(parts_, parts_.part_rows())),
      normed_(hidden_rows(parts_, parts_.part_rows())),
      hidden_(hidden_rows(parts_, parts_.part_rows() * parts_.shard.tensor)),
      attention_(parts_),
      delta_net_(parts_),
      dense_mlp_(parts_),
      experts_(parts_, dense_mlp_),
      logit_rows_(hidden_rows(parts_, parts_.limits.max_logit_rows)),
      logits_(parts_.device->tensor(parts_.limits.max_logit_rows, parts_.config->vocab_size, DType::float32,
                                    "activations")) {}

DType Model::cache_dtype() const {
  return parts_.limits.fp8_keys_and_values ? DType::e4m3 : parts_.device->dtype();
}

size_t Model::block_bytes() const {
  return static_cast<size_t>(
      key_value_block_bytes(*parts_.config, parts_.shard, parts_.limits.block_size, cache_dtype()));
}

void Model::allocate_cache(const CacheSize& size) {
  Device& device = *parts_.device;
  const int64_t block_size = parts_.limits.block_size;
  const auto paged = [&](const PagedKeyValues& kept) {
    const auto half = [&] {
      return device.tensor(size.num_blocks * kept.block_rows(block_size), kept.head_dim, cache_dtype(),
                           "keys and values");
    };
    const Tensor k = half(), v = half();
    place_of_layer_.push_back(cache_.size());
    cache_.push_back({.k = k,
                      .v = v,
                      .num_kv_heads = static_cast<int32_t>(kept.num_kv_heads),
                      .block_size = static_cast<int32_t>(block_size),
                      .head_dim = static_cast<int32_t>(kept.head_dim)});
  };
  const auto fixed = [&](const FixedState& kept) {
    DeltaState state{.shape = kept.shape};
    const char* const what = "states of sequences";
    state.conv =
        device.tensor(size.num_states * state.conv_rows(), kept.shape.channels(), device.dtype(), what);
    state.memory =
        device.tensor(size.num_states * state.memory_rows(), kept.shape.value_dim, DType::float32, what);
    place_of_layer_.push_back(states_.size());
    states_.push_back(state);
  };
  for (const KeptOfLayer& kept : kept_of_sequence(*parts_.config, parts_.shard))
    if (const auto* const keys = std::get_if<PagedKeyValues>(&kept))
      paged(*keys);
    else
      fixed(std::get<FixedState>(kept));
}

void Model::move_kept(const StepPlan& plan) {
  Device& device = *parts_.device;
  if (!plan.swap_out.empty()) device.swap_blocks(cache_, plan.swap_out, Device::Swap::out);
  if (!plan.swap_in.empty()) device.swap_blocks(cache_, plan.swap_in, Device::Swap::in);
  if (!plan.copies.empty()) device.copy_rows(cache_, plan.copies);
  if (!plan.state_swap_out.empty()) device.swap_states(states_, plan.state_swap_out, Device::Swap::out);
  if (!plan.state_swap_in.empty()) device.swap_states(states_, plan.state_swap_in, Device::Swap::in);
  if (!plan.state_copies.empty()) device.copy_states(states_, plan.state_copies);
}

void Model::submit(const StepPlan& plan, const std::vector<int32_t>& tokens_of_rank) {
  Device& device = *parts_.device;
  move_kept(plan);
  Step& step = step_;
  step = {.host_plan = &plan,
          .plan = device.upload(plan),
          .part = part_of_step(plan.num_tokens(), parts_.shard.tensor, parts_.shard.tensor_rank)};
  step.residual = residual_.first(step.part.padded);
  step.delta = delta_.first(step.part.padded);
  step.normed = normed_.first(step.part.padded);
  step.hidden = hidden_.first(step.part.padded * parts_.shard.tensor);
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
  experts_.routed().begin_copy(step.part.count());
}

StepResult Model::collect() {
  StepResult out = logits(step_, *step_.host_plan);
  if (!parts_.routed.kept()) return out;
  if (out.rows.empty()) parts_.device->synchronize();  // else `sample` has waited
  out.routed = experts_.routed().take(step_.part.count());
  return out;
}

void Model::layers(const Step& step) {
  Device& device = *parts_.device;
  const std::vector<LayerWeights>& layers = weights_.layers;
  if (step.any()) {
    device.embed(weights_.embedding, {step.plan.tokens.data + step.part.begin, step.part.count()},
                 step.residual.first(step.part.count()));
    device.rms_norm(step.residual, layers.front().input_norm, parts_.eps(), step.normed);
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    const bool last = i + 1 == layers.size();
    layer(step, i, step.norm(last ? weights_.final_norm : layers[i + 1].input_norm, parts_.eps()));
  }
}

StepResult Model::logits(const Step& step, const StepPlan& plan) {
  // A rank scores the rows whose hidden state it holds: nothing crosses tp, and no row is cut.
  StepResult out;
  for (size_t i = 0; i < plan.logit_rows.size(); ++i)
    if (const int32_t token = plan.logit_rows[i].token_index;
        token >= step.part.begin && token < step.part.end)
      out.rows.push_back(static_cast<int32_t>(i));

  Device& device = *parts_.device;
  std::vector<int32_t> tokens;
  std::vector<LogitRow> rows;
  for (size_t begin = 0; begin < out.rows.size();
       begin += static_cast<size_t>(parts_.limits.max_logit_rows)) {
    const size_t end = std::min(out.rows.size(), begin + static_cast<size_t>(parts_.limits.max_logit_rows));
    tokens.clear(), rows.clear();
    for (size_t i = begin; i < end; ++i) {
      rows.push_back(plan.logit_rows[static_cast<size_t>(out.rows[i])]);
      tokens.push_back(rows.back().token_index - static_cast<int32_t>(step.part.begin));
    }
    const auto count = static_cast<int64_t>(rows.size());
    device.gather_rows(step.normed, tokens, logit_rows_.first(count));
    device.linear(logit_rows_.first(count), weights_.lm_head, nullptr, logits_.first(count));
    if (weights_.lm_head_bias.data) device.add_bias(logits_.first(count), weights_.lm_head_bias);
    const std::vector<TokenResult> results = device.sample(logits_.first(count), rows, plan);
    out.results.insert(out.results.end(), results.begin(), results.end());
  }
  return out;
}

}  // namespace moerun
