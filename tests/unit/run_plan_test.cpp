#include "plan/run_plan.h"

#include "job/job_file.h"
#include "model/config.h"
#include "moerun/error.h"
#include "plan/device_limits.h"
#include "plan/run_plan_wire.h"
#include "tests/catch.h"

using namespace moerun;

namespace {

const char kModel[] = "data/tiny-moe";

Job job_with(const std::vector<std::string>& overrides) {
  return parse_job("model: {path: data/tiny-moe}\ninput: {path: in.jsonl}\noutput: {path: out.h5}\n",
                   "job.yaml", overrides);
}

RunPlan planned(const std::vector<std::string>& overrides, int num_ranks = 1) {
  return plan_run(job_with(overrides), read_model_config(kModel), {.num_ranks = num_ranks});
}

std::string refusal(const std::vector<std::string>& overrides, const Machine& machine = {}) {
  try {
    plan_run(job_with(overrides), read_model_config(kModel), machine);
  } catch (const BadInput& fault) {
    return fault.what();
  }
  return "";
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// Limits of Qwen3-30B-A3B on one GPU, which the kernels take.
StepLimits sound_limits() {
  return {.max_num_batched_tokens = 8192,
          .max_num_seqs = 1024,
          .max_model_len = 40960,
          .block_size = 64,
          .num_heads = 32,
          .num_kv_heads = 4,
          .head_dim = 128,
          .hidden_size = 2048,
          .vocab_size = 151936,
          .num_experts = 128,
          .num_experts_per_tok = 8,
          .num_local_experts = 128,
          .moe_intermediate_size = 768};
}

}  // namespace

TEST_CASE("a plan decides every auto, and its job written as YAML is that job", "[plan]") {
  const RunPlan cpu = planned({"device=cpu", "parallel.tensor=2"}, 4);
  CHECK(cpu.layout.data == 2);
  CHECK(cpu.dtype == DType::float32);
  CHECK(cpu.sequences.most == 64);
  CHECK(cpu.job.scheduler.max_num_batched_tokens == 512);
  CHECK(cpu.job.model.max_model_len == cpu.config.max_position_embeddings);
  CHECK(parse_job(cpu.job.yaml, "again") == cpu.job);

  const RunPlan cuda = planned({"device=cuda"});
  CHECK(cuda.dtype == (cuda.config.dtype == DType::float32 ? DType::bfloat16 : cuda.config.dtype));
  CHECK(cuda.sequences.most == 1024);
  CHECK(cuda.job.scheduler.max_num_batched_tokens == 8192);
}

TEST_CASE("a rank's plan is its place, its shard, its limits and its memory", "[plan]") {
  const RunPlan run = planned({"device=cpu", "parallel.tensor=2", "memory.num_blocks=99"}, 4);
  const RankPlan last = plan_rank(run, 3);
  CHECK(last.at.data == 1);
  CHECK(last.at.tensor == 1);
  CHECK_FALSE(last.is_leader());
  CHECK(plan_rank(run, 2).is_leader());
  CHECK(last.shard.tensor_rank == 1);
  CHECK(last.shard.local_experts == last.experts.experts_of(3));
  CHECK(last.limits.num_heads == run.config.num_attention_heads / 2);
  CHECK(last.exchange.group_tokens == last.exchange.part_tokens * 2);
  CHECK(last.limits.max_routed_tokens == last.exchange.part_tokens * 4);
  CHECK(last.memory.most_blocks == 99);
  CHECK(last.memory.blocks_in(UINT64_MAX / 2) == 99);
  CHECK(last.memory.blocks_in(static_cast<uint64_t>(last.memory.block_bytes) * 7 + 1) == 7);
  CHECK(last.memory.num_host_blocks == (int64_t{4} << 30) / last.memory.block_bytes);
  CHECK(plan_rank(planned({"device=null"}), 0).memory.num_host_blocks == 0);
}

TEST_CASE("a plan arrives as it was sent", "[plan]") {
  RunPlan run =
      planned({"device=cpu", "sampling.stop=[\"\\n\", \"größe\"]", "sampling.seed=18446744073709551615",
               "sampling.temperature=0.7", "limits.time=\"3:55:00\"", "null_step_ms=0",
               "memory.gpu_memory_utilization=0.123456789012345"});
  run.num_rows = uint64_t{1} << 40;
  const RunPlan back = unpack_run_plan(pack(run));
  CHECK(back.job == run.job);
  CHECK(back.config.checksum == run.config.checksum);
  CHECK(back.layout.world_size() == run.layout.world_size());
  CHECK(back.dtype == run.dtype);
  CHECK(back.sequences.of_any_length == run.sequences.of_any_length);
  CHECK(back.num_rows == run.num_rows);

  const Job random = parse_job(
      "model: {path: m}\noutput: {path: o.h5}\ninput: {random: {num_prompts: 3, input_len: "
      "4, output_len: 5, range_ratio: 0.25, seed: 6}}\n",
      "job.yaml");
  CHECK(unpack_job(pack_job(random)) == random);
  CHECK_THROWS_AS(unpack_job("nonsense"), Error);
  CHECK_THROWS_AS(unpack_job(pack_job(random).substr(3)), Error);
}

TEST_CASE("the kernels' limits refuse by the key or field that is beyond them", "[plan]") {
  CHECK(device_refuses(sound_limits(), {.dense = 6144}).empty());
  const auto refused = [](auto change, const std::string& said) {
    StepLimits limits = sound_limits();
    change(limits);
    const std::vector<std::string> lines = device_refuses(limits, {.dense = 0});
    INFO(said);
    REQUIRE(lines.size() == 1);
    CHECK(lines[0] == said);
  };
  refused([](auto& l) { l.block_size = 16; }, "memory.block_size: 16: device: cuda takes multiples of 32");
  refused([](auto& l) { l.head_dim = 96; }, "config.json: head_dim: 96: device: cuda takes 64, 128, 256");
  refused([](auto& l) { l.num_heads = 68; },
          "config.json: num_attention_heads over num_key_value_heads: 17: device: cuda takes 1 to 16 query "
          "heads a "
          "key head");
  refused([](auto& l) { l.hidden_size = 2052; },
          "config.json: hidden_size: 2052: device: cuda takes multiples of 8");
  refused([](auto& l) { l.hidden_size = 16392; },
          "config.json: hidden_size: 16392: device: cuda takes at most 16384");
  refused([](auto& l) { l.vocab_size = 4194305; },
          "config.json: vocab_size: 4194305: device: cuda takes at most 4194304");
  CHECK(device_refuses(sound_limits(), {.dense = 4100}) ==
        std::vector<std::string>{"config.json: intermediate_size: 4100: device: cuda takes multiples of 8"});
  CHECK(device_refuses(sound_limits(), {.shared = 1404}) ==
        std::vector<std::string>{
            "config.json: the shared expert's width: 1404: device: cuda takes multiples of 8"});
  refused([](auto& l) { l.num_expert_groups = 33; },
          "config.json: n_group: 33: device: cuda takes at most 32");
  refused([](auto& l) { l.moe_intermediate_size = 772; },
          "config.json: moe_intermediate_size: 772: device: cuda takes multiples of 8");
  refused([](auto& l) { l.num_experts = 513; },
          "config.json: num_experts: 513: device: cuda takes at most 512");
  refused([](auto& l) { l.num_experts_per_tok = 17; },
          "config.json: num_experts_per_tok: 17: device: cuda takes at most 16");
  refused([](auto& l) { l.max_num_batched_tokens = 1 << 20; },
          "scheduler.max_num_batched_tokens: 1048576: device: cuda takes at most 1048560");

  StepLimits dense = sound_limits();  // without experts their sizes say nothing
  dense.num_experts = 0;
  dense.moe_intermediate_size = 3;
  CHECK(device_refuses(dense, {.dense = 6144}).empty());
}

TEST_CASE("what cannot run is refused by the plan, all at once", "[plan]") {
  CHECK(has(refusal({"device=cuda", "memory.block_size=16"}), "memory.block_size: 16: device: cuda takes"));
  CHECK(refusal({"device=cpu", "memory.block_size=16"}).empty());
  const std::string both = refusal({"device=cuda", "memory.block_size=16", "model.dtype=float32"});
  CHECK(has(both, "memory.block_size: 16"));
  CHECK(has(both, "model.dtype: float32 is for device: cpu"));

  const Machine four{.num_ranks = 4};
  CHECK(has(refusal({"device=cuda", "parallel.all_to_all=nccl", "parallel.redundant_experts=4"}, four),
            "parallel.redundant_experts: the all-to-all by nccl knows no copies of experts"));
  CHECK(refusal({"device=cuda", "parallel.all_to_all=p2p", "parallel.redundant_experts=4"}, four).empty());
  CHECK(has(refusal({"device=cuda", "parallel.all_to_all=nccl"}, {.num_ranks = 3}),
            "parallel.all_to_all: nccl needs a power of two of ranks that divides the experts evenly"));
  const Machine two_hosts{.num_ranks = 4, .hosts = {"a", "a", "b", "b"}};
  CHECK(has(refusal({"device=cuda", "parallel.all_to_all=p2p"}, two_hosts),
            "parallel.all_to_all: p2p: the ranks of an engine are on several nodes"));
  CHECK(refusal({"device=cuda", "parallel.all_to_all=p2p", "parallel.replicas=2"}, two_hosts).empty());

  CHECK(has(refusal({"device=cpu", "memory.cpu_kv_gib=0.0001"}),
            "memory: there is room for keys and values of"));
  CHECK(has(refusal({"device=cuda", "memory.num_blocks=1"}), "one sequence of model.max_model_len"));
  CHECK(has(refusal({"device=cpu", "parallel.tensor=4", "parallel.data=2"},
                    {.num_ranks = 1, .command = "moerun job.yaml parallel.data=2"}),
            "needs 8 ranks, and 1 were started; start it with: mpirun -n 8 moerun job.yaml parallel.data=2"));
}

TEST_CASE("a model with gated delta nets: a state for each sequence, and what cannot be", "[plan]") {
  const auto config = [] { return read_model_config("tests/golden/shapes/qwen3-next"); };
  const auto refused = [&](const std::vector<std::string>& overrides, int ranks = 1) {
    try {
      plan_run(job_with(overrides), config(), {.num_ranks = ranks});
    } catch (const BadInput& fault) {
      return std::string(fault.what());
    }
    return std::string();
  };
  const MemoryPlan memory = plan_rank(plan_run(job_with({"device=cpu"}), config(), {}), 0).memory;
  // Three layers with 3 inputs of 352 channels and 16 states of 12 × 10; one with 2 key heads of 16.
  CHECK(memory.state_bytes == 3 * (3 * 352 * 4 + 16 * 12 * 10 * 4));
  CHECK(memory.block_bytes == 2 * 2 * 64 * 16 * 4);
  CHECK(memory.num_states == 64 + 16);
  CHECK(memory.num_host_states == 64);
  CHECK(memory.num_host_blocks == ((int64_t{4} << 30) - 64 * memory.state_bytes) / memory.block_bytes);
  CHECK(memory.blocks_in(memory.all_states() + 5 * static_cast<uint64_t>(memory.block_bytes)) == 5);
  CHECK(memory.blocks_in(memory.all_states() - 1) == 0);
  const auto states = [&](const std::vector<std::string>& overrides, int ranks = 1) {
    return plan_rank(plan_run(job_with(overrides), config(), {.num_ranks = ranks}), 0).memory;
  };
  CHECK(states({"device=cpu", "scheduler.prefix_sharing=off"}).num_states == 64);
  CHECK(states({"device=cpu", "parallel.tensor=4"}, 4).state_bytes == memory.state_bytes / 4);
  // Half of the room is 20 states: 16 sequences and 4 that are kept.
  const std::string room =
      "memory.cpu_kv_gib=" + std::to_string(40.5 * static_cast<double>(memory.state_bytes) / (1 << 30));
  CHECK(plan_run(job_with({"device=cpu", room, "model.max_model_len=64"}), config(), {}).sequences.most ==
        16);
  CHECK(has(
      refused({"device=cpu", room, "scheduler.max_num_seqs=64"}),
      "memory: beside the states of 64 sequences, 0.00 GiB, there is room for keys and values of 0 tokens"));

  CHECK(
      has(refused({"device=cpu", "scheduler.max_num_batched_tokens=63"}),
          "scheduler.max_num_batched_tokens: 63: this model's prompts are computed in chunks of 64 tokens"));
  CHECK(refused({"device=cpu", "scheduler.max_num_batched_tokens=64"}).empty());
  // The test model's heads are smaller than the GPU's kernels take.
  CHECK(has(refused({"device=cuda"}), "config.json: head_dim: 16: device: cuda takes 64, 128, 256"));
  const auto on_gpu = [](DeltaShape delta) {
    StepLimits limits = sound_limits();
    limits.num_delta_layers = 3;
    return device_refuses(limits, {}, delta);
  };
  const DeltaShape published{
      .num_key_heads = 16, .num_value_heads = 32, .key_dim = 128, .value_dim = 128, .conv_width = 4};
  CHECK(on_gpu(published).empty());
  DeltaShape other = published;
  other.key_dim = 136, other.value_dim = 60, other.conv_width = 5;
  CHECK(on_gpu(other) ==
        std::vector<std::string>{
            "config.json: linear_key_head_dim: 136: device: cuda takes multiples of 8 up to 128",
            "config.json: linear_value_head_dim: 60: device: cuda takes multiples of 8 up to 128",
            "config.json: linear_conv_kernel_dim: 5: device: cuda takes at most 4"});
  ModelConfig narrow = config();
  narrow.delta.num_key_heads = 2;
  const auto wide = [&] {
    plan_run(job_with({"device=cpu", "parallel.tensor=4"}), narrow, {.num_ranks = 4});
  };
  CHECK_THROWS_WITH(
      wide(), ContainsSubstring("parallel.tensor: 4 does not divide the model's 2 linear_num_key_heads"));
  narrow.delta = config().delta;
  narrow.delta.num_value_heads = 24, narrow.delta.num_key_heads = 8;
  CHECK_NOTHROW(wide());
}

TEST_CASE("keys and values in FP8 take a quarter of float32's room, and half of 16 bits'", "[plan]") {
  const RunPlan usual = planned({"device=cpu"}), fp8 = planned({"device=cpu", "memory.kv_cache_dtype=fp8"});
  CHECK(usual.key_value_dtype() == DType::float32);
  CHECK(plan_rank(usual, 0).memory.block_bytes == 4 * plan_rank(fp8, 0).memory.block_bytes);
  CHECK(plan_rank(fp8, 0).limits.fp8_keys_and_values);
  CHECK(formats_text(fp8) == "weights float32, activations float32, keys and values float8_e4m3fn");
  const RunPlan cuda = planned({"device=cuda"}),
                cuda_fp8 = planned({"device=cuda", "memory.kv_cache_dtype=fp8"});
  CHECK(plan_rank(cuda, 0).memory.block_bytes == 2 * plan_rank(cuda_fp8, 0).memory.block_bytes);
  CHECK(formats_text(cuda_fp8) == "weights bfloat16, activations bfloat16, keys and values float8_e4m3fn");
}

TEST_CASE("FP8 weights are refused where a shard would cut a block", "[plan]") {
  const auto refusal_of = [](int64_t heads, int64_t head_dim, const std::vector<std::string>& overrides,
                             int ranks) {
    ModelConfig config = read_model_config(kModel);
    config.quantization = {.scales = ".weight_scale_inv", .block_rows = 128, .block_cols = 128};
    config.num_attention_heads = config.num_key_value_heads = heads;
    config.head_dim = head_dim;
    try {
      plan_run(job_with(overrides), config, {.num_ranks = ranks});
    } catch (const BadInput& fault) {
      return std::string(fault.what());
    }
    return std::string();
  };
  CHECK(refusal_of(8, 64, {"device=cuda"}, 1).empty());
  // 8 heads of 64 are 512 columns: four groups of 128.
  CHECK(refusal_of(8, 64, {"device=cpu", "parallel.tensor=4"}, 4).empty());
  CHECK(
      has(refusal_of(8, 64, {"device=cpu", "parallel.tensor=8"}, 8),
          "parallel.tensor: 8 would cut a block of 128 of the FP8 weights of o_proj, which has 512 columns: "
          "set it to 4 or less"));
  CHECK(has(refusal_of(6, 64, {"device=cpu", "parallel.tensor=2"}, 2), "set it to 1 or less"));
}
