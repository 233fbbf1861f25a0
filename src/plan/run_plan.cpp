#include "plan/run_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "comm/exchange_table.h"
#include "job/faults.h"
#include "job/job_file.h"
#include "kernels/cuda/limits.h"
#include "layout/expert_copies.h"
#include "model/blocks/dense_mlp.h"
#include "model/sequence_state.h"
#include "moerun/error.h"
#include "moerun/step_runner.h"
#include "plan/checks.h"
#include "plan/device_limits.h"

namespace moerun {

namespace {

using AllToAll = Job::Parallel::AllToAll;

constexpr double kGiB = 1 << 30;

ModelShard shard_of(const RunPlan& run, const ExpertMap& experts, int rank) {
  const int ep_rank = ep_rank_of(run.layout, rank);
  return {.tensor = run.layout.tensor,
          .tensor_rank = coordinates_of(run.layout, rank).tensor,
          .local_experts = experts.experts_of(ep_rank),
          .local_slot = experts.local_slots(ep_rank),
          .redundant_slots = experts.num_redundant_slots(ep_rank),
          .rank_of_turn = experts.num_redundant() > 0 ? ranks_of_turns(experts, {}) : std::vector<int32_t>()};
}

/// Slots of states: one for each sequence that runs, and for beginnings that rows share a quarter more.
int64_t states_of(int64_t num_seqs, bool share) { return num_seqs + (share ? (num_seqs + 3) / 4 : 0); }

MemoryPlan memory_of(const RunPlan& run, const ModelShard& shard) {
  const Job& job = run.job;
  const int64_t block_size = job.memory.block_size;
  MemoryPlan out{.weights = weight_bytes(run.config, shard, run.dtype),
                 .block_bytes = key_value_block_bytes(run.config, shard, block_size, run.key_value_dtype()),
                 .blocks_a_sequence = (job.model.max_model_len + block_size - 1) / block_size,
                 .asked = job.memory.num_blocks > 0};
  out.most_blocks = out.asked ? job.memory.num_blocks : out.blocks_a_sequence * run.sequences.most;
  out.state_bytes = state_slot_bytes(run.config, shard, run.dtype);
  if (out.state_bytes > 0) out.num_states = states_of(run.sequences.most, job.scheduler.prefix_sharing);
  if (job.device == Job::DeviceKind::null) return out;
  auto swap_space = static_cast<int64_t>(job.memory.swap_space_gib * kGiB);
  if (out.state_bytes > 0) {  // a preempted sequence needs a slot and blocks
    out.num_host_states = std::min<int64_t>(run.sequences.most, swap_space / 2 / out.state_bytes);
    swap_space -= out.num_host_states * out.state_bytes;
  }
  out.num_host_blocks = swap_space / out.block_bytes;
  return out;
}

/// The sequences that run at once, where the job leaves it open: as many as have states in half of the room
/// that a CPU rank gives to what is kept of sequences.
void fit_sequences(RunPlan& run) {
  const Job& job = run.job;
  if (!run.config.has_delta_nets() || job.device != Job::DeviceKind::cpu || job.scheduler.max_num_seqs > 0)
    return;
  const int64_t state_bytes = plan_rank(run, 0).memory.state_bytes;
  const auto room = static_cast<int64_t>(job.memory.cpu_kv_gib * kGiB / 2);
  int32_t& most = run.sequences.most;
  while (most > 1 && states_of(most, job.scheduler.prefix_sharing) * state_bytes > room) --most;
  run.sequences.of_any_length = std::min(run.sequences.of_any_length, most);
}

/// What a model whose prompts are computed in chunks asks of the job.
void check_delta_nets(const RunPlan& run, Faults& faults) {
  if (!run.config.has_delta_nets()) return;
  if (const int64_t tokens = run.job.scheduler.max_num_batched_tokens; tokens < kDeltaChunk)
    faults.add("scheduler.max_num_batched_tokens",
               fmt::format("{}: this model's prompts are computed in chunks of {} tokens, which a step must "
                           "have room for: set it to {} or more",
                           tokens, kDeltaChunk, kDeltaChunk));
}

StepLimits limits_of(const RunPlan& run, const ModelShard& shard, const MemoryPlan& memory,
                     int64_t part_tokens) {
  const Job& job = run.job;
  const ModelConfig& config = run.config;
  // A decode step's rows at once, up to a size at which the product with the LM head is no longer bound by
  // its weights.
  constexpr int64_t kFewestLogitRows = 256, kMostLogitRows = 512;
  return {.max_num_batched_tokens = job.scheduler.max_num_batched_tokens,
          .max_num_seqs = run.sequences.most,
          .max_model_len = job.model.max_model_len,
          .block_size = job.memory.block_size,
          .num_host_blocks = memory.num_host_blocks,
          .max_routed_tokens = part_tokens * run.layout.ep_size(),
          .max_logit_rows = std::clamp<int64_t>(run.sequences.most, kFewestLogitRows, kMostLogitRows),
          .num_heads = shard.num_heads(config),
          .num_kv_heads = shard.num_kv_heads(config),
          .head_dim = config.head_dim,
          .hidden_size = config.hidden_size,
          .vocab_size = config.vocab_size,
          .num_experts = config.num_experts,
          .num_experts_per_tok = config.num_experts_per_tok,
          .num_local_experts = shard.num_slots(),
          .moe_intermediate_size = config.moe_intermediate_size,
          .num_expert_groups = config.router.num_groups,
          .fp8_keys_and_values = run.key_value_dtype() == DType::e4m3,
          .num_delta_layers = std::count(config.delta_layers.begin(), config.delta_layers.end(), true)};
}

/// Whether all ranks of each engine are on one host; true where hosts are not known.
bool engines_on_one_host(const Layout& layout, const std::vector<std::string>& hosts) {
  for (size_t rank = 0; rank < hosts.size(); ++rank)
    if (hosts[rank] !=
        hosts[rank / static_cast<size_t>(layout.ep_size()) * static_cast<size_t>(layout.ep_size())])
      return false;
  return true;
}

/// What a named exchange cannot do for this engine, that is known before GPUs are asked.
void check_exchange(const RunPlan& run, const ExpertMap& experts, const Machine& machine, Faults& faults) {
  const AllToAll asked = run.job.parallel.all_to_all;
  if (asked == AllToAll::automatic) return;
  const EngineLinks links{.gpus = run.job.device == Job::DeviceKind::cuda,
                          .one_node = engines_on_one_host(run.layout, machine.hosts)};
  for (const ExchangeRefusal& refusal : exchange_backend(asked).refuses(experts, links))
    faults.add(refusal.key, refusal.text());
}

/// A model all of whose layers are dense has no routers.
void check_routed(const RunPlan& run, Faults& faults) {
  if (run.job.output.routed_experts && !run.routed().kept())
    faults.add("output.routed_experts", "no layer of this model has experts: leave the key out");
}

/// Room for keys and values that is known before there is a device.
void check_memory(const RunPlan& run, const MemoryPlan& memory, Faults& faults) {
  int64_t blocks = memory.most_blocks;
  if (run.job.device == Job::DeviceKind::cpu && !memory.asked)
    blocks = memory.blocks_in(static_cast<uint64_t>(run.job.memory.cpu_kv_gib * kGiB));
  if (const std::string wrong = too_few_blocks(run, memory, blocks); !wrong.empty()) faults.add(wrong);
}

}  // namespace

int64_t MemoryPlan::blocks_in(uint64_t bytes) const {
  const uint64_t left = bytes - std::min(bytes, all_states());
  return std::min(most_blocks, static_cast<int64_t>(left / static_cast<uint64_t>(block_bytes)));
}

DType resolve_dtype(Job::DeviceKind kind, std::optional<DType> asked, DType of_checkpoint) {
  if (kind == Job::DeviceKind::cuda) {
    if (asked == DType::float32)
      throw BadInput(
          "model.dtype: float32 is for device: cpu; the CUDA device computes in float16 or bfloat16");
    // A checkpoint in float32 is computed in bfloat16: the same range.
    return asked.value_or(of_checkpoint == DType::float32 ? DType::bfloat16 : of_checkpoint);
  }
  if (asked.value_or(DType::float32) != DType::float32)
    throw BadInput(fmt::format("model.dtype: {} is for device: cuda; the CPU device computes in float32",
                               name_of(*asked)));
  return DType::float32;
}

void decide_autos(Job& job, const ModelConfig& config) {
  const bool gpu = job.device == Job::DeviceKind::cuda;
  if (job.model.max_model_len == 0) job.model.max_model_len = config.max_position_embeddings;
  if (job.scheduler.max_num_batched_tokens == 0) job.scheduler.max_num_batched_tokens = gpu ? 8192 : 512;
}

RunPlan plan_run(Job job, ModelConfig config, const Machine& machine) {
  decide_autos(job, config);
  Faults faults;
  RunPlan run{.job = std::move(job), .config = std::move(config)};
  run.sequences = sequence_limit(run.job);
  const auto collect = [&](auto&& part) {
    try {
      part();
    } catch (const BadInput& fault) {
      faults.add(fault.what());
    }
  };
  collect([&] { run.dtype = resolve_dtype(run.job.device, run.job.model.dtype, run.config.dtype); });
  collect([&] {
    check_layout(run.job, run.config, machine.num_ranks, machine.command);
    const Job::Parallel& asked = run.job.parallel;
    run.layout = make_layout(machine.num_ranks, asked.tensor, asked.data, asked.replicas);
    fit_sequences(run);
    check_delta_nets(run, faults);
    check_routed(run, faults);
    const RankPlan first = plan_rank(run, 0);
    check_exchange(run, first.experts, machine, faults);
    check_memory(run, first.memory, faults);
    if (run.job.device == Job::DeviceKind::cuda)
      for (const std::string& refusal :
           device_refuses(first.limits, {dense_width(run.config), run.config.shared_intermediate_size},
                          run.config.delta))
        faults.add(refusal);
  });
  faults.throw_if_any();
  run.job.yaml = yaml_of(run.job);
  return run;
}

RankPlan plan_rank(const RunPlan& run, int rank) {
  const ModelConfig& config = run.config;
  ExpertMap experts(static_cast<int>(config.num_experts), run.layout.ep_size(),
                    run.job.parallel.redundant_experts);
  ModelShard shard = shard_of(run, experts, rank);
  const MemoryPlan memory = memory_of(run, shard);
  const int64_t part = part_of_step(run.job.scheduler.max_num_batched_tokens, run.layout.tensor, 0).padded;
  const StepLimits limits = limits_of(run, shard, memory, part);
  return {.at = coordinates_of(run.layout, rank),
          .experts = std::move(experts),
          .shard = std::move(shard),
          .limits = limits,
          .exchange = {.all_to_all = run.job.parallel.all_to_all,
                       .part_tokens = part,
                       .group_tokens = part * run.layout.tensor,
                       .hidden_size = config.hidden_size,
                       .num_experts_per_tok = config.num_experts_per_tok},
          .memory = memory};
}

std::string formats_text(const RunPlan& run) {
  const std::string_view activations = name_of(run.dtype);
  return fmt::format("weights {}{}, activations {}, keys and values {}",
                     run.config.quantization.is_fp8() ? fmt::format("{} and ", name_of(DType::e4m3)) : "",
                     activations, activations, name_of(run.key_value_dtype()));
}

namespace {
const char* more_room(const RunPlan& run) {
  return run.job.device == Job::DeviceKind::cuda ? "memory.gpu_memory_utilization, more ranks"
                                                 : "memory.cpu_kv_gib, memory.num_blocks";
}
}  // namespace

std::string too_few_blocks(const RunPlan& run, const MemoryPlan& memory, int64_t num_blocks) {
  if (num_blocks >= memory.blocks_a_sequence) return "";
  const int64_t tokens = num_blocks * run.job.memory.block_size;
  if (memory.state_bytes > 0)
    return fmt::format(
        "memory: beside the states of {} sequences, {:.2f} GiB, there is room for keys and values of {} "
        "tokens, and one sequence of model.max_model_len {} needs more: set scheduler.max_num_seqs or "
        "model.max_model_len to less, or give more room ({})",
        run.sequences.most, static_cast<double>(memory.all_states()) / kGiB, tokens,
        run.job.model.max_model_len, more_room(run));
  return fmt::format(
      "memory: there is room for keys and values of {} tokens, and one sequence of model.max_model_len {} "
      "needs more: set model.max_model_len to {} or less, or give more room ({})",
      tokens, run.job.model.max_model_len, tokens, more_room(run));
}

}  // namespace moerun
