// What the scheduler makes of ten workloads and more, on two sizes of memory, without a GPU: the code that
// ranks run, driven by a model of a step's time. Usage: scheduler_bench MODEL_DIR [--seed N] [--only NAME]
// [--json FILE]
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <nlohmann/json.hpp>

#include "model/config.h"
#include "moerun/error.h"
#include "plan/run_plan.h"
#include "simulation.h"

using namespace moerun;
using namespace moerun::bench;

namespace {

struct Memory {
  const char* name;
  double gib;  ///< that CUDA gives (run/check_command.cpp)
};
constexpr Memory kMemories[] = {{"80 GB", 79.6}, {"141 GB", 140.4}};

/// What a GPU of this size has for keys and values beside all of the model's weights.
Room room_on(const std::string& model, double gib) {
  Job job;
  job.model.path = model;
  job.model.load_format = Job::Model::LoadFormat::dummy;
  job.device = Job::DeviceKind::cuda;
  const ModelConfig config = read_model_config(model);
  decide_autos(job, config);
  const RunPlan run = plan_run(job, config, {});
  const RankPlan rank = plan_rank(run, 0);
  const double bytes =
      key_value_bytes_on_gpu(config, rank.memory.weights, run.job.scheduler.max_num_batched_tokens,
                             gib * (1 << 30) * run.job.memory.gpu_memory_utilization);
  return {.num_blocks = static_cast<int64_t>(bytes / static_cast<double>(rank.memory.block_bytes)),
          .num_host_blocks = rank.memory.num_host_blocks,
          .block_bytes = static_cast<double>(rank.memory.block_bytes),
          .block_size = run.job.memory.block_size};
}

void print_row(const Workload& workload, const Outcome& o) {
  fmt::print("  {:<14} {:8.1f} {:8.1f} {:6.2f} {:6.1f} {:6.1f} {:6.1f} {:7} {:6} {:7} {:7} {:9}\n",
             workload.name, o.seconds, o.least_seconds, o.seconds / o.least_seconds, 100 * o.ramp,
             100 * o.tail, 100 * o.used, o.steps, o.most_running, o.preemptions, o.swaps, o.computed_again);
}

nlohmann::ordered_json json_of(const Workload& workload, const char* memory, const Outcome& o) {
  return {{"workload", workload.name},
          {"what", workload.what},
          {"memory", memory},
          {"model_seconds", o.seconds},
          {"least_seconds", o.least_seconds},
          {"ramp", o.ramp},
          {"tail", o.tail},
          {"key_value_use", o.used},
          {"steps", o.steps},
          {"tokens", o.tokens},
          {"most_running", o.most_running},
          {"preemptions", o.preemptions},
          {"swaps", o.swaps},
          {"computed_again", o.computed_again},
          {"shared", o.shared}};
}

int run(const std::string& model, uint64_t seed, const std::string& only, const std::string& json_path) {
  const std::vector<Workload> workloads = all_workloads(seed);
  auto out = nlohmann::ordered_json::array();
  fmt::print(
      "by a MODEL of one H200's steps (Qwen3-30B-A3B, bfloat16; tests/bench/scheduling/step_cost.cpp), not "
      "measured; seed {}\n",
      seed);
  for (const Memory& memory : kMemories) {
    const Room room = room_on(model, memory.gib);
    fmt::print("{}: room for {} tokens of keys and values, {} in the host's memory\n", memory.name,
               room.num_blocks * room.block_size, room.num_host_blocks * room.block_size);
    fmt::print("  {:<14} {:>8} {:>8} {:>6} {:>6} {:>6} {:>6} {:>7} {:>6} {:>7} {:>7} {:>9}\n", "", "s",
               "bound", "ratio", "ramp %", "tail %", "used %", "steps", "most", "preempt", "swapped",
               "again");
    double product = 1;
    int count = 0;
    for (const Workload& workload : workloads) {
      if (!only.empty() && workload.name != only) continue;
      const Outcome outcome = simulate(workload, room);
      print_row(workload, outcome);
      std::fflush(stdout);
      product *= outcome.seconds / outcome.least_seconds, ++count;
      out.push_back(json_of(workload, memory.name, outcome));
    }
    if (count == 0) throw BadInput(fmt::format("--only {}: no such workload", only));
    fmt::print("  {:<14} {:>24.3f}\n", "geometric mean", std::pow(product, 1.0 / count));
  }
  if (!json_path.empty()) std::ofstream(json_path) << out.dump(2) << "\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("the scheduler on simulated workloads");
  std::string model, only, json;
  uint64_t seed = 1;
  app.add_option("model", model, "folder with the config.json of the model whose keys and values count")
      ->required();
  app.add_option("--seed", seed, "of the workloads");
  app.add_option("--only", only, "one workload by its name");
  app.add_option("--json", json, "the figures as JSON");
  CLI11_PARSE(app, argc, argv);
  try {
    return run(model, seed, only, json);
  } catch (const std::exception& fault) {
    fmt::print(stderr, "scheduler_bench: {}\n", fault.what());
    return 2;
  }
}
