#include "run/loaded_model.h"

#include <fmt/format.h>

#include <chrono>
#include <utility>

#include "device/factory.h"
#include "io/file_state.h"
#include "io/safetensors.h"
#include "model/blocks/attention.h"
#include "model/families.h"
#include "model/memory_estimate.h"
#include "moerun/error.h"

namespace moerun {

namespace {

using Clock = std::chrono::steady_clock;

constexpr double kGiB = 1 << 30;

double since(Clock::time_point began) { return std::chrono::duration<double>(Clock::now() - began).count(); }

void check_shared_gpus(const MpiEnv& env, const std::string& uuid, bool allowed) {
  const std::vector<std::string> uuids = env.all_gather(uuid);
  if (allowed) return;
  for (size_t a = 0; a < uuids.size(); ++a)
    for (size_t b = a + 1; b < uuids.size(); ++b)
      if (!uuids[a].empty() && uuids[a] == uuids[b])
        throw BadInput(
            fmt::format("ranks {} and {} (host {}) share one GPU ({}): start one rank a GPU, or set "
                        "parallel.allow_shared_gpu: true for a test",
                        a, b, env.hosts()[a], uuids[a]));
}

void print_memory(const Device& device, int64_t redundant_bytes, int64_t num_blocks, int64_t block_size) {
  fmt::print(stderr, "moerun: memory of rank 0 ({})\n", device.name());
  const auto line = [](const std::string& what, auto bytes) {
    fmt::print(stderr, "  {:<28} {:9.3f} GiB\n", what, static_cast<double>(bytes) / kGiB);
  };
  for (const MemoryUse& use : device.memory_table()) {
    line(use.what, use.bytes);
    if (use.what == "experts" && redundant_bytes > 0) line("  of these, redundant", redundant_bytes);
  }
  fmt::print(stderr, "  {} blocks of {} tokens: room for {} tokens a group\n", num_blocks, block_size,
             num_blocks * block_size);
}

}  // namespace

LoadedModel::LoadedModel(const RankParts& parts) : parts_(parts) {
  const Job& job = parts.run.job;
  const MpiEnv& env = parts.env;
  device_ = make_device(job.device, {.dtype = parts.run.dtype,
                                     .local_rank = env.local_rank(),
                                     .local_size = env.local_size(),
                                     .shared_gpus = job.parallel.allow_shared_gpu,
                                     .speaks = env.rank() == 0,
                                     .graphs = !job.enforce_eager,
                                     .memory = job.memory});
  check_shared_gpus(env, device_->uuid(), job.parallel.allow_shared_gpu);
  make_exchange();
  check_room();
  load();
  device_->reserve(parts.plan.limits);
  if (parts.plan.experts.num_redundant() > 0) make_redundant_experts();
}

/// Before the weights: what GPUs and links cannot do is known here.
void LoadedModel::make_exchange() {
  const ExchangeRequest& exchange = parts_.plan.exchange;
  backends_ = make_backends({.all_to_all = exchange.all_to_all,
                             .ep = parts_.comms.ep,
                             .tp = parts_.comms.tp,
                             .experts = &parts_.plan.experts,
                             .device = device_.get(),
                             .progress = &parts_.watchdog.progress(),
                             .part_tokens = exchange.part_tokens,
                             .group_tokens = exchange.group_tokens,
                             .hidden_size = exchange.hidden_size,
                             .num_experts_per_tok = exchange.num_experts_per_tok,
                             .head_sums = gathered_head_sums(parts_.run.config, parts_.plan.shard)});
  if (parts_.run.layout.ep_size() > 1)
    device_->set_wait_check([this] {
      backends_.tp->check();
      backends_.exchange->check();
    });
}

/// Whether the weights have room at all; on the CPU nobody knows.
void LoadedModel::check_room() const {
  if (device_->host_memory()) return;
  const WeightBytes& weights = parts_.plan.memory.weights;
  const double needed = weights.all - weights.embedding, free = static_cast<double>(device_->free_bytes());
  if (needed > free)
    throw BadInput(fmt::format(
        "memory: the weights of rank {} take {:.1f} GiB, and {:.1f} GiB of its GPU are free for them: "
        "use more ranks (parallel.data, parallel.tensor), or raise memory.gpu_memory_utilization",
        parts_.env.rank(), needed / kGiB, free / kGiB));
}

void LoadedModel::load() {
  const ModelConfig& config = parts_.run.config;
  const ModelShard& shard = parts_.plan.shard;
  // Progress lines for those who wait for a large checkpoint.
  const auto began = Clock::now();
  const WeightBytes stored = weight_bytes(config, shard, config.dtype);
  const double total = stored.all - stored.redundant;
  double loaded = 0, due = 5;
  const auto progress = [&](uint64_t bytes) {
    parts_.watchdog.progress().beat();
    loaded += static_cast<double>(bytes);
    if (parts_.env.rank() != 0 || since(began) < due) return;
    due = since(began) + 5;
    fmt::print(stderr, "loading weights: {:.1f} of {:.1f} GiB, {:.2f} GiB/s\n", loaded / kGiB, total / kGiB,
               loaded / kGiB / since(began));
  };
  Weights weights;
  with_weight_source(
      [&](const WeightSource& source) { weights = load_weights(*device_, config, shard, source, progress); });
  model_ = config.family->make({.config = &config,
                                .shard = shard,
                                .limits = parts_.plan.limits,
                                .device = device_.get(),
                                .tp = backends_.tp.get(),
                                .exchange = backends_.exchange.get(),
                                .routed = parts_.run.routed()});
  model_->set_weights(std::move(weights));
}

void LoadedModel::make_redundant_experts() {
  redundant_experts_ = std::make_unique<RedundantExperts>(
      RedundantExperts::Parts{.model = model_.get(),
                              .map = &parts_.plan.experts,
                              .ep = parts_.comms.ep,
                              .progress = &parts_.watchdog.progress(),
                              .load = [this](std::span<const ExpertPlace> places) {
                                with_weight_source([&](const WeightSource& source) {
                                  load_experts(*device_, parts_.run.config, source, model_->weights(), places,
                                               [this](uint64_t) { parts_.watchdog.progress().beat(); });
                                });
                              }});
}

void LoadedModel::with_weight_source(const std::function<void(const WeightSource&)>& use) const {
  const Job::Model& model = parts_.run.job.model;
  if (model.load_format == Job::Model::LoadFormat::dummy) return use(DummyWeightSource());
  const Checkpoint checkpoint = Checkpoint::open(model.path);
  use(CheckpointWeights(checkpoint));
  // What was read is what the job's fingerprint says: also where experts are read again while it runs.
  if (state_of_files(checkpoint.files()) != parts_.weights_state)
    throw Error(
        fmt::format("{}: the weights were written to or replaced while this job ran. Put back what they "
                    "were, and the same "
                    "command goes on; as they are now, they are another job's model",
                    model.path));
}

StepRunner& LoadedModel::runner() {
  if (redundant_experts_) return *redundant_experts_;
  return *model_;
}

int64_t LoadedModel::blocks_with_room() const {
  const MemoryPlan& memory = parts_.plan.memory;
  return memory.asked ? memory.most_blocks : memory.blocks_in(device_->free_bytes());
}

void LoadedModel::allocate_cache(int64_t num_blocks) {
  model_->allocate_cache({.num_blocks = num_blocks, .num_states = parts_.plan.memory.num_states});
  if (parts_.env.rank() == 0)
    print_memory(*device_, static_cast<int64_t>(parts_.plan.memory.weights.redundant), num_blocks,
                 parts_.run.job.memory.block_size);
}

double LoadedModel::seconds_beside_steps() const {
  return redundant_experts_ ? redundant_experts_->report().seconds : 0;
}

void LoadedModel::report(RankReport& out) const {
  out.device = device_->name();
  out.device_uuid = device_->uuid();
  out.all_to_all = backends_.all_to_all;
  out.all_to_all_why = backends_.why;
  const ExchangeSeconds exchange = exchange_seconds();
  out.all_to_all_s = exchange.all_to_all;
  out.tensor_s = exchange.tensor;
  out.memory = device_->memory_table();
  out.processes = device_->processes();
  out.expert_tokens = model_->experts().expert_tokens();
  if (redundant_experts_) out.placement = redundant_experts_->report();
}

}  // namespace moerun
