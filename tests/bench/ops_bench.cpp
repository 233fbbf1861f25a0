// Times the CUDA device's operations with the layer shapes of Qwen3-30B-A3B, each as time and percent of its
// bound: bytes over read bandwidth or operations over the matrix rate, whichever is longer. Operations are
// recorded as a graph of several, on different weights, so that neither launches nor the cache flatter them.
//
// Usage: ops_bench [GB/s TFLOP/s [OPERATIONS [FORMAT]]]   (the machine's ceilings; default those of one H100
// 80GB that kernels/README.md has; OPERATIONS: experts, dense, attention, logits or small alone; FORMAT of
// the weights of experts and dense: bfloat16 or fp8, else both)
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <random>
#include <set>

#include "device/cuda_device.h"
#include "kernels/cuda/moe_combine.h"
#include "kernels/cuda/norms.h"
#include "moerun/error.h"
#include "tests/bench/bench.h"
#include "tests/bench/routing.h"

using namespace moerun;

namespace {

constexpr int64_t kHidden = 2048, kHeads = 32, kKvHeads = 4, kHeadDim = 128, kExperts = 128, kTopK = 8,
                  kWidth = 768, kVocab = 151936, kMaxTokens = 16384, kCopies = Bench::kCopies;
constexpr int64_t kQkv = (kHeads + 2 * kKvHeads) * kHeadDim, kAttention = kHeads * kHeadDim;
constexpr int32_t kOutputChunks = 8;  // of the output projection's K: output_chunks (src/model/shard.h)
const std::vector<int64_t> kTokens{1, 16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384},
    kDenseTokens{1, 16, 64, 256, 570, 1024, 1690, 4096, 16384};

std::unique_ptr<Device> make_bench_device() {
  auto device = make_cuda_device({.dtype = DType::bfloat16, .gpu_memory_utilization = 0.9});
  device->reserve({.max_num_batched_tokens = 2 * kMaxTokens,
                   .max_num_seqs = 512,
                   .max_model_len = 4096,
                   .max_routed_tokens = kMaxTokens,
                   .max_logit_rows = 512,
                   .num_heads = kHeads,
                   .num_kv_heads = kKvHeads,
                   .head_dim = kHeadDim,
                   .hidden_size = kHidden,
                   .vocab_size = kVocab,
                   .num_experts = kExperts,
                   .num_experts_per_tok = kTopK,
                   .num_local_experts = kExperts,
                   .moe_intermediate_size = kWidth});
  return device;
}

void dense(Bench& bench) {
  Device& device = bench.device();
  std::vector<Tensor> x, wide;
  std::vector<Matrix> qkv, output;
  for (int64_t i = 0; i < kCopies; ++i) {
    x.push_back(bench.random(kMaxTokens, kHidden, 1));
    wide.push_back(bench.random(kMaxTokens, kQkv, 1));
    qkv.push_back(bench.random_matrix(Matrix::Kind::plain, 1, kQkv, kHidden));
    output.push_back(bench.random_matrix(Matrix::Kind::plain, 1, kHidden, kAttention));
  }
  const Tensor residual = bench.random(kMaxTokens, kHidden, 1), weight = bench.random(1, kHidden, 1),
               delta = bench.random(kMaxTokens, kHidden, 1);
  const auto at = [](const std::vector<Tensor>& tensors, int64_t i, int64_t n) {
    return tensors[static_cast<size_t>(i)].first(n);
  };
  const auto narrow = [&](int64_t i, int64_t n) {
    Tensor tensor = wide[static_cast<size_t>(i)];
    tensor.cols = kAttention;
    return tensor.first(n);
  };
  for (const int64_t n : kDenseTokens) {
    const auto rows = static_cast<double>(n);
    bench.time("add_rms_norm", n, rows * kHidden * 2 * 4, 0, [&](int64_t i) {
      device.add_rms_norm({residual.first(n), at(x, i, n), weight, 1e-6F, at(x, (i + 1) % kCopies, n)});
    });
    bench.time("linear qkv", n, bench.weight_bytes(kQkv * kHidden) + 2.0 * rows * (kQkv + kHidden),
               2.0 * rows * kQkv * kHidden, [&](int64_t i) {
                 device.linear(at(x, i, n), qkv[static_cast<size_t>(i)], nullptr, at(wide, i, n));
               });
    for (const int32_t chunks : {1, kOutputChunks})
      bench.time(fmt::format("linear_tree output, {}", chunks), n,
                 bench.weight_bytes(kAttention * kHidden) + 2.0 * rows * (kAttention + kHidden),
                 2.0 * rows * kAttention * kHidden, [&](int64_t i) {
                   device.linear_tree(narrow(i, n), output[static_cast<size_t>(i)], chunks, at(x, i, n));
                 });
    bench.time(fmt::format("linear_tree_add_rms_norm, {}", kOutputChunks), n,
               bench.weight_bytes(kAttention * kHidden) + 2.0 * rows * (kAttention + 3 * kHidden),
               2.0 * rows * kAttention * kHidden, [&](int64_t i) {
                 device.linear_tree_add_rms_norm(
                     narrow(i, n), output[static_cast<size_t>(i)], kOutputChunks,
                     {residual.first(n), delta.first(n), weight, 1e-6F, at(x, i, n)});
               });
  }
}

void experts(Bench& bench) {
  Device& device = bench.device();
  std::vector<Matrix> gate_up, down;
  std::vector<Tensor> gates;
  constexpr int64_t kLayers = 2;  // 2.4 GB: far more than the cache
  for (int64_t i = 0; i < kLayers; ++i) {
    gate_up.push_back(bench.random_matrix(Matrix::Kind::expert_gate_up, kExperts, 2 * kWidth, kHidden));
    down.push_back(bench.random_matrix(Matrix::Kind::expert_down, kExperts, kHidden, kWidth));
    gates.push_back(bench.random(kExperts, kHidden, 0.05F));
  }
  ExpertSlots slots;
  slots.host_local_slot.resize(kExperts);
  std::iota(slots.host_local_slot.begin(), slots.host_local_slot.end(), 0);
  slots.num_local = kExperts;
  slots.local_slot = device.ints(kExperts, "bench");
  device.copy_to_device(slots.local_slot.data, slots.host_local_slot.data(), kExperts * 4);
  const Tensor x = bench.random(kMaxTokens, kHidden, 1), out = bench.random(kMaxTokens, kHidden, 1);
  const Ints ids = device.ints(kMaxTokens * kTopK, "bench");
  const Tensor weights = device.tensor(kMaxTokens, kTopK, DType::float32, "bench");
  std::mt19937_64 random(20261125);
  for (const int64_t n : kTokens) {
    const auto rows = static_cast<double>(n);
    bench.time("router", n, 2.0 * rows * kHidden, 2.0 * rows * kHidden * kExperts, [&](int64_t i) {
      device.router({.x = x.first(n),
                     .gate = gates[static_cast<size_t>(i % kLayers)],
                     .num_experts_per_tok = kTopK,
                     .rule = {.normalise = true},
                     .topk_ids = {ids.data, n * kTopK},
                     .topk_weights = weights.first(n)});
    });
    for (const auto& [routing, name] :
         {std::pair{Routing::balanced, "balanced"}, {Routing::power_law, "power law"}}) {
      const std::vector<int32_t> routed = make_routing(routing, n, kTopK, kExperts, random);
      device.copy_to_device(ids.data, routed.data(), routed.size() * sizeof(int32_t));
      const auto hit = static_cast<double>(std::set<int32_t>(routed.begin(), routed.end()).size());
      for (const auto& [pace, how] : {std::pair{Pace::sustained, "sustained"}, {Pace::rested, "rested"}})
        bench.time(
            fmt::format("expert_ffn {}, {}", name, how), n,
            bench.weight_bytes(hit * 3 * kWidth * kHidden) + rows * kHidden * 2 * 2,
            2.0 * rows * kTopK * 3 * kWidth * kHidden,
            [&](int64_t i) {
              const auto layer = static_cast<size_t>(i % kLayers);
              device.expert_ffn({.in = {x.first(n), {ids.data, n * kTopK}, weights.first(n)},
                                 .gate_up = &gate_up[layer],
                                 .down = &down[layer],
                                 .slots = &slots,
                                 .out = out.first(n)});
            },
            pace);
    }
  }
}

void logits(Bench& bench) {
  Device& device = bench.device();
  const Matrix head = bench.random_matrix(Matrix::Kind::plain, 1, kVocab, kHidden);
  const Tensor x = bench.random(512, kHidden, 1), out = device.tensor(512, kVocab, DType::float32, "bench");
  for (const int64_t n : {1, 16, 64, 256, 512}) {
    const auto count = static_cast<double>(n);
    bench.time("linear lm_head, float32", n, 2.0 * kVocab * kHidden + 4.0 * count * kVocab,
               2.0 * count * kVocab * kHidden,
               [&](int64_t) { device.linear(x.first(n), head, nullptr, out.first(n)); });
    StepPlan plan;
    std::vector<LogitRow> rows(static_cast<size_t>(n));
    const auto sample = [&](const char* name) {
      bench.time_host(name, n, 4.0 * count * kVocab, [&] { device.sample(out.first(n), rows, plan); });
    };
    sample("sample, greedy");
    for (LogitRow& row : rows) row.draw.temperature = 0.8F;
    sample("sample, temperature");
    for (LogitRow& row : rows) row.draw.top_p = 0.95F;
    sample("sample, top_p");
    for (LogitRow& row : rows) row.draw.top_k = 50;
    sample("sample, top_k and top_p");
    for (LogitRow& row : rows) row = {.draw = {.logprobs = 5}};
    sample("sample, greedy, 5 logprobs");
  }
}

/// Attention over a cache of its own for each repetition; every block lies somewhere else than the one
/// before.
void attention_over(Bench& bench, DType kept) {
  Device& device = bench.device();
  constexpr int64_t kBlock = 64, kCacheTokens = 512 * 1024;  // 0.5 GB each of keys and values a layer
  const int64_t rows = kCacheTokens * kKvHeads;
  std::vector<KvLayer> layers;
  const auto half = [&] {
    return kept == DType::e4m3 ? bench.random_e4m3(rows, kHeadDim) : bench.random(rows, kHeadDim, 1);
  };
  for (int64_t i = 0; i < 2; ++i) layers.push_back({half(), half(), kKvHeads, kBlock, kHeadDim});
  const Tensor q = bench.random(2 * kMaxTokens, kAttention, 1),
               out = device.tensor(2 * kMaxTokens, kAttention, DType::bfloat16, "bench");
  std::vector<int32_t> blocks(kCacheTokens / kBlock);
  std::iota(blocks.begin(), blocks.end(), 0);
  std::shuffle(blocks.begin(), blocks.end(), std::mt19937_64(1));
  struct Sequences {
    int32_t count, queries, context;
  };
  // Prompts first; the others have one query each.
  const auto run = [&](const std::string& name, const Sequences& prompts, const Sequences& decodes) {
    StepPlan plan{.max_blocks = static_cast<int32_t>(
                      (std::max(prompts.context, decodes.context) + kBlock - 1) / kBlock),
                  .num_prefill_seqs = prompts.count};
    plan.cu_seqlens_q.push_back(0);
    double bytes = 0, flop = 0;
    constexpr double kHeadsBytes = kHeads * kHeadDim * 4.0;
    const double key_bytes = 2.0 * kKvHeads * kHeadDim * static_cast<double>(size_of(kept));
    for (const Sequences& kind : {prompts, decodes})
      for (int32_t s = 0; s < kind.count; ++s) {
        plan.cu_seqlens_q.push_back(plan.cu_seqlens_q.back() + kind.queries);
        plan.context_lens.push_back(kind.context);
        bytes += kind.context * key_bytes + kind.queries * kHeadsBytes;
        const double pairs = kind.queries * (kind.context - (kind.queries - 1) / 2.0);
        if (kind.queries > 1) flop += 4.0 * kHeads * kHeadDim * pairs;
      }
    plan.tokens.resize(static_cast<size_t>(plan.cu_seqlens_q.back()));
    plan.positions = plan.slot_mapping = plan.tokens;
    plan.block_table.assign(blocks.begin(),
                            blocks.begin() + int64_t{prompts.count + decodes.count} * plan.max_blocks);
    const DevicePlan uploaded = device.upload(plan);
    bench.time((kept == DType::e4m3 ? "e4m3 kept: " : "") + name, plan.num_tokens(), bytes, flop,
               [&](int64_t i) {
                 device.attention(uploaded, {.q = q.first(plan.num_tokens()),
                                             .kv = layers[static_cast<size_t>(i % 2)],
                                             .out = out.first(plan.num_tokens()),
                                             .num_heads = kHeads,
                                             .scale = 0.088388F});
               });
  };
  for (const auto& [seqs, context] : {std::pair{1, 2048}, {64, 1024}, {128, 2048}, {256, 1024}, {512, 512}})
    run(fmt::format("decode {} x {}", seqs, context), {}, {seqs, 1, context});
  for (const int32_t context : {256, 512, 1024, 2048})
    run(fmt::format("prefill 16 x {}", context), {16, context, context}, {});
  // Mixed steps of 1,024/128 and 512/512, and their parts.
  for (const auto& [prompts, decodes] : {std::pair{Sequences{2, 744, 744}, Sequences{185, 1, 1088}},
                                         {Sequences{1, 270, 400}, Sequences{265, 1, 768}}}) {
    const std::string prompt = fmt::format("{} x {} of {}", prompts.count, prompts.queries, prompts.context),
                      decode = fmt::format("{} x {}", decodes.count, decodes.context);
    run("prefill " + prompt, prompts, {});
    run("decode " + decode, {}, decodes);
    run("both", prompts, decodes);
  }
}

void attention(Bench& bench) {
  for (const DType kept : {DType::bfloat16, DType::e4m3}) attention_over(bench, kept);
}

/// What runs between a layer's products, at sizes of decode, of mixed and of prefill steps. Nothing else runs
/// between, so that steps of few tokens find their inputs in the cache.
void small(Bench& bench) {
  Device& device = bench.device();
  auto* const stream = static_cast<cudaStream_t>(cuda_stream(device));
  constexpr int64_t kMost = 4096, kBlock = 64;
  std::vector<Tensor> x, y, qkv, gates, residuals;  // a residual is read while the kernel before still runs
  for (int64_t i = 0; i < kCopies; ++i) {
    x.push_back(bench.random(kMost, kHidden, 1));
    residuals.push_back(bench.random(kMost, kHidden, 1));
    y.push_back(bench.random(kMost * kTopK, kHidden, 1));
    qkv.push_back(bench.random(kMost, kQkv, 1));
    gates.push_back(bench.random(kExperts, kHidden, 0.05F));
  }
  const Tensor residual = residuals[0], weight = bench.random(1, kHidden, 1),
               out = bench.random(kMost, kHidden, 1), q = bench.random(kMost, kAttention, 1),
               angles = bench.random(kMost, kHeadDim / 2, 1, DType::float32),
               head_norm = bench.random(1, kHeadDim, 1),
               topk_weights = device.tensor(kMost, kTopK, DType::float32, "bench");
  const KvLayer kv{bench.random(kMost * kKvHeads, kHeadDim, 1), bench.random(kMost * kKvHeads, kHeadDim, 1),
                   kKvHeads, kBlock, kHeadDim};
  std::mt19937_64 random(1);
  std::vector<int32_t> experts(kExperts), choices;
  std::iota(experts.begin(), experts.end(), 0);
  for (int64_t token = 0; token < kMost; ++token) {
    std::shuffle(experts.begin(), experts.end(), random);
    choices.insert(choices.end(), experts.begin(), experts.begin() + kTopK);
  }
  std::iota(experts.begin(), experts.end(), 0);
  const Ints topk_ids = device.ints(kMost * kTopK, "bench"), local_slot = device.ints(kExperts, "bench"),
             routed_ids = device.ints(kMost * kTopK, "bench");
  device.copy_to_device(topk_ids.data, choices.data(), choices.size() * 4);
  device.copy_to_device(local_slot.data, experts.data(), experts.size() * 4);
  for (const int64_t n : {170, 384, 560, 768, 1024, 1900, 4096}) {
    const auto row_bytes = static_cast<double>(n * kHidden * 2);
    const auto copy = [](const auto& of, int64_t i) { return of[static_cast<size_t>(i)]; };
    const auto sums = [&](int64_t i) {
      return MoeCombineArgs{.y = copy(y, i).data,
                            .topk_ids = topk_ids.data,
                            .local_slot = local_slot.data,
                            .out = out.data,
                            .num_tokens = static_cast<int32_t>(n),
                            .k = kTopK,
                            .hidden = kHidden};
    };
    bench.time("moe_combine", n, row_bytes * (kTopK + 1), 0,
               [&](int64_t i) { launch_moe_combine(sums(i), stream); });
    bench.time("moe_combine_add_rms_norm", n, row_bytes * (kTopK + 3), 0, [&](int64_t i) {
      launch_moe_combine_add_rms_norm(
          {.sums = sums(i), .residual = copy(residuals, i).data, .weight = weight.data, .eps = 1e-6F},
          stream);
    });
    bench.time("router", n, row_bytes, 2.0 * static_cast<double>(n * kHidden * kExperts), [&](int64_t i) {
      device.router({.x = copy(x, i).first(n),
                     .gate = copy(gates, i),
                     .num_experts_per_tok = kTopK,
                     .rule = {.normalise = true},
                     .topk_ids = {routed_ids.data, n * kTopK},
                     .topk_weights = topk_weights.first(n)});
    });
    bench.time(fmt::format("tree_sum, {}", kOutputChunks), n, row_bytes * (kOutputChunks + 1), 0,
               [&](int64_t i) {
                 device.tree_sum(copy(y, i).first(kOutputChunks * n), kOutputChunks, out.first(n));
               });
    bench.time("add_rms_norm", n, row_bytes * 4, 0, [&](int64_t i) {
      device.add_rms_norm({residual.first(n), copy(x, i).first(n), weight, 1e-6F, out.first(n)});
    });
    bench.time(fmt::format("add_rms_norm of {} parts", kOutputChunks), n, row_bytes * (kOutputChunks + 3), 0,
               [&](int64_t i) {
                 launch_rms_norm({.x = copy(y, i).data,
                                  .num_parts = kOutputChunks,
                                  .residual = residual.data,
                                  .weight = weight.data,
                                  .out = out.data,
                                  .rows = n,
                                  .cols = kHidden,
                                  .eps = 1e-6F},
                                 stream);
               });
    StepPlan plan{.max_blocks = 1};
    plan.tokens.resize(static_cast<size_t>(n));
    std::iota(plan.tokens.begin(), plan.tokens.end(), 0);
    plan.positions = plan.slot_mapping = plan.tokens;
    plan.cu_seqlens_q = {0, static_cast<int32_t>(n)};
    plan.context_lens = {static_cast<int32_t>(n)};
    plan.block_table = {0};
    const DevicePlan uploaded = device.upload(plan);
    bench.time("rope_and_cache", n, row_bytes * 2 * kQkv / kHidden, 0, [&](int64_t i) {
      device.rope_and_cache(uploaded, {.qkv = copy(qkv, i).first(n),
                                       .q_norm = head_norm,
                                       .k_norm = head_norm,
                                       .cos = angles,
                                       .sin = angles,
                                       .q = q.first(n),
                                       .kv = kv,
                                       .num_heads = kHeads,
                                       .eps = 1e-6F});
    });
  }
}

}  // namespace

int main(int argc, char** argv) try {
  Ceilings ceilings;
  if (argc >= 3) ceilings = {std::atof(argv[1]) * 1e9, std::atof(argv[2]) * 1e12};
  Bench bench(ceilings, make_bench_device());
  fmt::print("{}: percent of max(bytes / {:.0f} GB/s, operations / {:.0f} TFLOP/s)\n", bench.device().name(),
             ceilings.bytes_a_second / 1e9, ceilings.flop_a_second / 1e12);
  fmt::print("{:<32} {:>6}  {:>12}  {:>6}\n", "operation", "tokens", "time", "bound");
  const std::string only = argc >= 4 ? argv[3] : "", format = argc == 5 ? argv[4] : "";
  const std::pair<const char*, void (*)(Bench&)> parts[] = {
      {"experts", experts}, {"dense", dense}, {"attention", attention}, {"logits", logits}, {"small", small}};
  for (const auto& [name, part] : parts) {
    if (!only.empty() && only != name) continue;
    const bool weights = part == experts || part == dense;
    if (!weights || format != "fp8") part(bench);
    if (!weights || format == "bfloat16") continue;
    bench.set_weights(DType::e4m3);
    part(bench);
    bench.set_weights(DType::bfloat16);
  }
  return 0;
} catch (const std::exception& error) {
  fmt::print(stderr, "ops_bench: {}\n", error.what());
  return 1;
}
