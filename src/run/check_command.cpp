#include "run/check_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <vector>

#include "comm/cost_model.h"
#include "comm/exchange_table.h"
#include "comm/measured_exchange.h"
#include "device/factory.h"
#include "job/job_file.h"
#include "model/memory_estimate.h"
#include "model/sequence_state.h"
#include "moerun/error.h"
#include "plan/checks.h"
#include "report/progress_line.h"
#include "run/identity.h"

namespace moerun {

namespace {

constexpr double kGiB = 1 << 30;

/// A rank's part of the exchange in one layer of a full step.
ExchangeLoad full_load(const CheckedJob& checked) {
  const ModelConfig& config = checked.config;
  return {.ranks = checked.layout.ep_size(),
          .tokens = static_cast<double>(checked.job.scheduler.max_num_batched_tokens) / checked.layout.tensor,
          .hidden_size = config.hidden_size,
          .element_bytes = static_cast<int64_t>(size_of(checked.dtype)),
          .num_experts = config.num_experts,
          .num_experts_per_tok = config.num_experts_per_tok};
}

constexpr double kNvLink = 450e9, kInfiniBand = 50e9;  // bytes/s each way: NVLink 4, one NDR 400 link

/// What crosses between ranks in one layer for a full step: the cost model of the all-to-all.
void print_exchange(const ExchangeLoad& load) {
  if (load.ranks == 1) return;
  fmt::print(
      "exchange     a full step brings {:.0f} tokens a rank; the experts of each are on {:.2f} of {} ranks\n",
      load.tokens, expected_ranks(load), load.ranks);
  const auto print = [](const char* backends, const ExchangeCost& cost) {
    fmt::print(
        "             {}: dispatch {:.2f} MB and combine {:.2f} MB a rank and layer; {:.0f} µs over NVLink "
        "(450 GB/s), {:.0f} µs over one 400 Gb/s link\n",
        backends, cost.dispatch_bytes / 1e6, cost.combine_bytes / 1e6, cost.seconds(kNvLink) * 1e6,
        cost.seconds(kInfiniBand) * 1e6);
  };
  print("p2p, mpi, nccl by counts", cost_once_a_rank(load));
  print("nccl by all-gather", cost_all_gather(load));
}

/// The measurements of such a job's exchange, of the one that it asks for. Throws BadInput.
std::vector<MeasuredExchange> measured_for_job(const CheckedJob& checked, const ExchangeLoad& load,
                                               const std::string& path) {
  if (path.empty()) return {};
  if (load.ranks == 1)
    throw BadInput(fmt::format("--measured {}: with one rank an engine nothing is exchanged", path));
  const Job::Parallel::AllToAll asked = checked.job.parallel.all_to_all;
  const std::string name = asked == Job::Parallel::AllToAll::automatic ? "" : exchange_backend(asked).name;
  try {
    return measured_for(read_measured_exchange(path), load, name);
  } catch (const BadInput& fault) {
    throw BadInput(fmt::format("--measured: {}", fault.what()));
  }
}

/// A table for each exchange, device and date: what was measured, the model's time of it, and their ratio.
void print_measured(const std::vector<MeasuredExchange>& measured) {
  std::string title;
  for (const MeasuredExchange& row : measured) {
    const std::string of = fmt::format("{} on {}, {}", row.exchange, row.device, row.date);
    if (of != title) {
      fmt::print("measured     {}, µs a layer:\n{:>26} {:>12}", of, "tokens a rank", "measured");
      for (const double link : {kNvLink, kInfiniBand})
        fmt::print(" {:>20}", fmt::format("model at {:.0f} GB/s", link / 1e9));
      fmt::print("\n");
      title = of;
    }
    fmt::print("{:>26} {:>12.1f}", row.load.tokens, row.us);
    for (const double link : {kNvLink, kInfiniBand}) {
      const double model = row.cost().seconds(link) * 1e6;
      fmt::print(" {:>20}", fmt::format("{:.2f} (×{:.1f})", model, row.us / model));
    }
    fmt::print("\n");
  }
}

/// A GPU that a job can be planned for, and what CUDA gives of its memory.
struct GpuMemory {
  std::string name;
  double gib = 0;
};
const std::array<GpuMemory, 2> kGpus{{{"an H100 of 80 GB", 79.6}, {"an H200 of 141 GB", 140.4}}};

/// The GPUs whose memory is planned for: the one that --gpu says, else those that are known.
std::vector<GpuMemory> gpus_of(const std::string& asked) {
  if (asked.empty()) return {kGpus.begin(), kGpus.end()};
  if (asked == "H100") return {kGpus[0]};
  if (asked == "H200") return {kGpus[1]};
  double gib = 0;
  const auto [end, error] = std::from_chars(asked.data(), asked.data() + asked.size(), gib);
  if (error != std::errc() || end != asked.data() + asked.size() || !(gib >= 1 && gib <= 4096))
    throw BadInput(fmt::format("--gpu {}: H100, H200, or a number of GiB from 1 to 4096", asked));
  return {{fmt::format("a GPU of {} GiB", gib), gib}};
}

/// What `device: auto` is planned as. It depends on the machine that runs the job, and a login node has no
/// GPU: a program that was built with CUDA is there to run on GPUs.
Job::DeviceKind planned_device(const Job& job, const CheckOptions& check) {
  if (job.device != Job::DeviceKind::automatic) return job.device;
  return has_cuda() || !check.gpu.empty() ? Job::DeviceKind::cuda : Job::DeviceKind::cpu;
}

std::string device_text(Job::DeviceKind asked, Job::DeviceKind planned) {
  std::string text = name_of(planned);
  if (asked == Job::DeviceKind::automatic)
    text += planned == Job::DeviceKind::cuda
                ? ", assumed for auto: a run takes cuda where it finds a GPU (device=cpu plans for CPUs)"
                : ", assumed for auto: this program was built without CUDA";
  else if (planned == Job::DeviceKind::cuda && !has_cuda())
    text += "; this program was built without CUDA and cannot run the job itself";
  return text;
}

void print_memory(const CheckedJob& checked, const std::vector<GpuMemory>& gpus) {
  const Job& job = checked.job;
  const RankPlan first = plan_rank(checked, 0);  // holds as many experts as any
  const ModelShard& shard = first.shard;
  const WeightBytes& weights = first.memory.weights;
  const double token = static_cast<double>(first.memory.block_bytes) / job.memory.block_size;
  fmt::print("memory       {:.2f} GiB of weights a rank ({} of {} experts)\n", weights.all / kGiB,
             shard.local_experts.size(), checked.config.num_experts);
  if (job.device == Job::DeviceKind::cuda)
    fmt::print("             {:.2f} GiB of them, the embedding, in the host's memory\n",
               weights.embedding / kGiB);
  if (job.parallel.redundant_experts > 0)
    fmt::print(
        "             {:.2f} GiB of them are room for redundant experts: in a layer {} of the engine's {}\n",
        weights.redundant / kGiB, shard.redundant_slots, job.parallel.redundant_experts);
  const auto room = [&](const char* what, double bytes) {
    if (bytes > 0)
      fmt::print("key/value    {}: about {:.2f} GiB, {} tokens a group\n", what, bytes / kGiB,
                 with_commas(static_cast<uint64_t>(bytes / token)));
    else
      fmt::print("key/value    {}: the weights do not fit: use more ranks\n", what);
  };
  fmt::print(
      "key/value    {:.1f} KiB a token and rank; at most {} tokens a sequence and {} sequences at once\n",
      token / 1024, with_commas(static_cast<uint64_t>(job.model.max_model_len)), checked.sequences.most);
  if (first.memory.state_bytes > 0)
    fmt::print("states       {:.1f} KiB a sequence and rank, {} of them: {:.2f} GiB, set aside first\n",
               static_cast<double>(first.memory.state_bytes) / 1024, first.memory.num_states,
               static_cast<double>(first.memory.all_states()) / kGiB);
  const auto states = static_cast<double>(first.memory.all_states());
  if (job.device == Job::DeviceKind::cpu) {
    room("of memory.cpu_kv_gib", job.memory.cpu_kv_gib * kGiB - states);
    return;
  }
  const auto on_gpu = [&](double gib) {
    return key_value_bytes_on_gpu(checked.config, weights, job.scheduler.max_num_batched_tokens,
                                  gib * kGiB * job.memory.gpu_memory_utilization) -
           states;
  };
  for (const GpuMemory& gpu : gpus) room(("on " + gpu.name).c_str(), on_gpu(gpu.gib));
}

/// What `output.routed_experts` costs.
void print_routed(const CheckedJob& checked) {
  const RoutedShape shape = checked.routed();
  if (!shape.kept()) return;
  const Job& job = checked.job;
  const auto bytes = static_cast<double>(shape.token_bytes());
  fmt::print(
      "routed       {} layers × {} experts × {} B: {} B a token of prompt and answer in {}, and "
      "{:.1f} KiB of a leader's host memory for each block of {} tokens that is used\n",
      shape.layers.size(), shape.experts_per_token, shape.id_bytes(), shape.token_bytes(), job.output.path,
      bytes * job.memory.block_size / 1024, job.memory.block_size);
}

}  // namespace

int check_main(const RunOptions& options, const CheckOptions& check) {
  const std::vector<GpuMemory> gpus = gpus_of(check.gpu);
  Job job = read_job(options.job_path, options.overrides);
  const int num_ranks = check.num_ranks > 0
                            ? check.num_ranks
                            : job.parallel.tensor * std::max(job.parallel.data, 1) * job.parallel.replicas;
  const Job::DeviceKind asked = job.device;
  job.device = planned_device(job, check);
  const CheckedJob checked = check_job(std::move(job), {.num_ranks = num_ranks}, options.job_path);
  const ExchangeLoad load = full_load(checked);
  const std::vector<MeasuredExchange> measured = measured_for_job(checked, load, check.measured_path);

  fmt::print("device       {}\n", device_text(asked, checked.job.device));
  for (const std::string& warning : checked.input.warnings) fmt::print("note         {}\n", warning);
  fmt::print("job          {}: sound\n", options.job_path);
  fmt::print("input        {} rows{}\n", with_commas(checked.input.num_rows),
             checked.input.openai ? ", OpenAI batch lines" : "");
  fmt::print("model        {}: {} layers, {} experts, {} a token; {} on {}\n", checked.job.model.path,
             checked.config.num_hidden_layers, checked.config.num_experts, checked.config.num_experts_per_tok,
             name_of(checked.dtype), name_of(checked.job.device));
  fmt::print("formats      {}\n", formats_text(checked));
  fmt::print("layout       {}\n", layout_text(checked.layout));
  print_memory(checked, gpus);
  print_routed(checked);
  print_exchange(load);
  print_measured(measured);
  return static_cast<int>(ExitCode::ok);
}

}  // namespace moerun
