#include "run/rank.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "comm/expert_copies.h"
#include "device/factory.h"
#include "io/safetensors.h"
#include "model/null_model.h"
#include "moerun/error.h"
#include "plan/sequence_limit.h"

namespace moerun {

using Clock = std::chrono::steady_clock;

namespace {

double since(Clock::time_point began) { return std::chrono::duration<double>(Clock::now() - began).count(); }

constexpr double kGiB = 1 << 30;

uint64_t peak_host_bytes() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
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

Rank::Rank(const MpiEnv& env, const Start& start, const Communicators& comms, Watchdog& watchdog)
    : env_(env),
      start_(start),
      comms_(comms),
      watchdog_(watchdog),
      at_(coordinates_of(start.layout, env.rank())),
      experts_(static_cast<int>(start.config.num_experts), start.layout.ep_size(),
               start.job.parallel.redundant_experts),
      agreement_(std::make_unique<StepAgreement>(comms.ep, &watchdog.progress())) {
  const Job& job = start.job;
  const auto began = Clock::now();
  watchdog.set_phase(Phase::load);
  int64_t num_blocks = 0;
  if (job.device == Job::DeviceKind::null) {
    null_model_ = std::make_unique<NullModel>(start.config.vocab_size, start.layout.tensor, at_.tensor,
                                              job.null_step_ms);
    num_blocks = blocks_that_fit();
  } else {
    device_ = make_device(job.device, {.dtype = start.dtype,
                                       .local_rank = env.local_rank(),
                                       .local_size = env.local_size(),
                                       .shared_gpus = job.parallel.allow_shared_gpu,
                                       .speaks = env.rank() == 0,
                                       .graphs = !job.enforce_eager,
                                       .memory = job.memory});
    check_shared_gpus();
    load();
    num_blocks = blocks_that_fit();
    model_->allocate_cache(num_blocks);
    if (env.rank() == 0) {
      const int64_t redundant = redundant_parameters(start.config, shard());
      print_memory(*device_, redundant * static_cast<int64_t>(size_of(device_->dtype())), num_blocks,
                   job.memory.block_size);
    }
  }
  if (is_leader()) leader_ = leader_parts(num_blocks);
  load_s_ = since(began);
}

void Rank::check_shared_gpus() const {
  const std::vector<std::string> uuids = env_.all_gather(device_->uuid());
  if (start_.job.parallel.allow_shared_gpu) return;
  for (size_t a = 0; a < uuids.size(); ++a)
    for (size_t b = a + 1; b < uuids.size(); ++b)
      if (!uuids[a].empty() && uuids[a] == uuids[b])
        throw Error(
            fmt::format("ranks {} and {} (host {}) share one GPU ({}): start one rank a GPU, or set "
                        "parallel.allow_shared_gpu: true for a test",
                        a, b, env_.hosts()[a], uuids[a]));
}

ModelShard Rank::shard() const {
  const int ep_rank = ep_rank_of(start_.layout, env_.rank());
  return {
      .tensor = start_.layout.tensor,
      .tensor_rank = at_.tensor,
      .local_experts = experts_.experts_of(ep_rank),
      .local_slot = experts_.local_slots(ep_rank),
      .redundant_slots = experts_.num_redundant_slots(ep_rank),
      .rank_of_turn = experts_.num_redundant() > 0 ? ranks_of_turns(experts_, {}) : std::vector<int32_t>()};
}

int64_t Rank::num_host_blocks(const ModelShard& shard) const {
  const Job::Memory& memory = start_.job.memory;
  return static_cast<int64_t>(memory.swap_space_gib * kGiB) /
         key_value_block_bytes(start_.config, shard, memory.block_size, device_->dtype());
}

StepLimits Rank::limits() const {
  const Job& job = start_.job;
  const ModelConfig& config = start_.config;
  const ModelShard shard = this->shard();
  const int64_t max_num_seqs = sequence_limit(job).most;
  const int64_t part =
      part_of_step(job.scheduler.max_num_batched_tokens, start_.layout.tensor, at_.tensor).padded;
  // A decode step's rows at once, up to a size at which the product with the LM head is no longer bound by
  // its weights.
  constexpr int64_t kFewestLogitRows = 256, kMostLogitRows = 512;
  return {.max_num_batched_tokens = job.scheduler.max_num_batched_tokens,
          .max_num_seqs = max_num_seqs,
          .max_model_len = job.model.max_model_len,
          .block_size = job.memory.block_size,
          .num_host_blocks = num_host_blocks(shard),
          .max_routed_tokens = part * start_.layout.ep_size(),
          .max_logit_rows = std::clamp<int64_t>(max_num_seqs, kFewestLogitRows, kMostLogitRows),
          .num_heads = shard.num_heads(config),
          .num_kv_heads = shard.num_kv_heads(config),
          .head_dim = config.head_dim,
          .hidden_size = config.hidden_size,
          .vocab_size = config.vocab_size,
          .num_experts = config.num_experts,
          .num_experts_per_tok = config.num_experts_per_tok,
          .num_local_experts = shard.num_slots(),
          .moe_intermediate_size = config.moe_intermediate_size};
}

void Rank::load() {
  const Job& job = start_.job;
  const ModelConfig& config = start_.config;
  const ModelShard shard = this->shard();
  const StepLimits limits = this->limits();
  const int64_t part = part_of_step(limits.max_num_batched_tokens, shard.tensor, 0).padded;

  // Progress lines for those who wait for a large checkpoint.
  const auto began = Clock::now();
  const double total =
      static_cast<double>(num_parameters(config, shard)) * static_cast<double>(size_of(config.dtype));
  double loaded = 0, due = 5;
  const auto progress = [&](uint64_t bytes) {
    watchdog_.progress().beat();
    loaded += static_cast<double>(bytes);
    if (env_.rank() != 0 || since(began) < due) return;
    due = since(began) + 5;
    fmt::print(stderr, "loading weights: {:.1f} of {:.1f} GiB, {:.2f} GiB/s\n", loaded / kGiB, total / kGiB,
               loaded / kGiB / since(began));
  };
  Weights weights;
  with_weight_source(
      [&](const WeightSource& source) { weights = load_weights(*device_, config, shard, source, progress); });

  backends_ = make_backends({.all_to_all = job.parallel.all_to_all,
                             .ep = comms_.ep,
                             .tp = comms_.tp,
                             .experts = &experts_,
                             .device = device_.get(),
                             .progress = &watchdog_.progress(),
                             .part_tokens = part,
                             .group_tokens = part * shard.tensor,
                             .hidden_size = config.hidden_size,
                             .num_experts_per_tok = config.num_experts_per_tok});
  if (start_.layout.ep_size() > 1)
    device_->set_wait_check([this] {
      backends_.tp->check();
      backends_.exchange->check();
    });
  if (experts_.num_redundant() > 0 && !backends_.exchange->takes_copies())
    throw BadInput(
        fmt::format("parallel.redundant_experts: the all-to-all by {} knows no copies of experts: "
                    "set parallel.all_to_all: p2p or mpi",
                    backends_.all_to_all));
  model_ = std::make_unique<Qwen3Moe>(
      config, shard, limits,
      Qwen3Moe::Parts{
          .device = device_.get(), .tp = backends_.tp.get(), .exchange = backends_.exchange.get()});
  model_->set_weights(std::move(weights));
  device_->reserve(limits);
  if (experts_.num_redundant() > 0)
    redundant_experts_ = std::make_unique<RedundantExperts>(
        RedundantExperts::Parts{.model = model_.get(),
                                .map = &experts_,
                                .ep = comms_.ep,
                                .progress = &watchdog_.progress(),
                                .load = [this](std::span<const ExpertPlace> places) {
                                  with_weight_source([&](const WeightSource& source) {
                                    load_experts(*device_, source, model_->weights(), places,
                                                 [this](uint64_t) { watchdog_.progress().beat(); });
                                  });
                                }});
}

void Rank::with_weight_source(const std::function<void(const WeightSource&)>& use) const {
  const Job::Model& model = start_.job.model;
  if (model.load_format == Job::Model::LoadFormat::dummy) return use(DummyWeightSource());
  const Checkpoint checkpoint = Checkpoint::open(model.path);
  use(CheckpointWeights(checkpoint));
}

int64_t Rank::blocks_that_fit() const {
  const Job& job = start_.job;
  const int64_t block_size = job.memory.block_size;
  const int64_t of_one = (job.model.max_model_len + block_size - 1) / block_size;
  int64_t num_blocks = job.memory.num_blocks;
  if (num_blocks == 0) {
    num_blocks = of_one * sequence_limit(job).most;  // more than that is never used
    if (device_)
      num_blocks =
          std::min<int64_t>(num_blocks, static_cast<int64_t>(device_->free_bytes() / model_->block_bytes()));
  }
  // Every rank holds the same blocks, because a group's ranks follow one block table.
  int64_t least = 0;
  MPI_CHECK(MPI_Allreduce(&num_blocks, &least, 1, MPI_INT64_T, MPI_MIN, env_.world()));
  if (least < of_one)
    throw BadInput(
        fmt::format("memory: there is room for keys and values of {} tokens, and one sequence of "
                    "model.max_model_len {} needs more: set model.max_model_len to {} or less, or give "
                    "more room ({})",
                    least * block_size, job.model.max_model_len, least * block_size,
                    job.device == Job::DeviceKind::cuda ? "memory.gpu_memory_utilization, more ranks"
                                                        : "memory.cpu_kv_gib, memory.num_blocks"));
  return least;
}

LeaderParts Rank::leader_parts(int64_t num_blocks) {
  const Job& job = start_.job;
  if (std::filesystem::exists(job.model.path + "/tokenizer.json"))
    tokenizer_ = Tokenizer::load(job.model.path);
  chat_template_ = ChatTemplate::load(job.model.path);
  const AnswerLimits limits{.max_model_len = job.model.max_model_len,
                            .eos_token_ids = start_.config.eos_token_ids};
  LeaderParts leader;
  const std::vector<int> leaders = leaders_of(start_.layout);
  const auto group = std::find(leaders.begin(), leaders.end(), env_.rank()) - leaders.begin();
  leader.link = std::make_unique<LeaderLink>(comms_.control, static_cast<int>(group));
  leader.preparer = std::make_unique<Preparer>(tokenizer_ ? &*tokenizer_ : nullptr, &*chat_template_, limits,
                                               start_.config.vocab_size);
  const SequenceLimit limit = sequence_limit(job);
  leader.scheduler = std::make_unique<Scheduler>(
      SchedulerOptions{.max_num_seqs = limit.most,
                       .num_seqs_of_any_length = limit.of_any_length,
                       .max_num_batched_tokens = job.scheduler.max_num_batched_tokens,
                       .block_size = job.memory.block_size,
                       .num_blocks = num_blocks,
                       .num_host_blocks = device_ ? num_host_blocks(shard()) : 0,
                       .limits = limits});
  return leader;
}

void Rank::run() {
  watchdog_.set_phase(Phase::run);
  StepRunner* const runner = redundant_experts_ ? static_cast<StepRunner*>(redundant_experts_.get())
                             : model_           ? model_.get()
                                                : null_model_.get();
  Engine engine({.runner = runner,
                 .agreement = agreement_.get(),
                 .tp = comms_.tp,
                 .progress = &watchdog_.progress(),
                 .leader = is_leader() ? &leader_ : nullptr});
  try {
    stats_ = engine.run();
  } catch (const Error& error) {
    // The GPU says that a kernel gave up; the exchange knows for whom it waited.
    const std::string fault = model_ ? backends_.exchange->fault() : "";
    if (fault.empty()) throw;
    throw Error(fmt::format("{} ({})", fault, error.what()));
  }
  if (redundant_experts_) stats_.forward_s -= redundant_experts_->report().seconds;  // loading is no step
}

RankReport Rank::report() const {
  RankReport out{.rank = env_.rank(),
                 .replica = at_.replica,
                 .data = at_.data,
                 .tensor = at_.tensor,
                 .host = env_.host(),
                 .device = device_ ? device_->name() : "null",
                 .device_uuid = device_ ? device_->uuid() : "",
                 .all_to_all = device_ ? backends_.all_to_all : "none",
                 .all_to_all_why = device_ ? backends_.why : "device: null has no experts",
                 .pid = getpid(),
                 .peak_host_bytes = peak_host_bytes(),
                 .load_s = load_s_,
                 .engine = stats_};
  if (device_) {
    out.all_to_all_s = backends_.exchange->seconds();
    out.tensor_s = backends_.tp->seconds();
    out.memory = device_->memory_table();
    out.processes = device_->processes();
    out.expert_tokens = model_->expert_tokens();
    if (redundant_experts_) out.placement = redundant_experts_->report();
  }
  return out;
}

}  // namespace moerun
