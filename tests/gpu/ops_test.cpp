// One body runs each operation on the CPU and on the GPU, on the same fresh random values, and compares. The
// CPU twin works in float32 on values that 16 bits hold exactly, so what differs is the GPU's rounding of its
// outputs and of what it keeps in 16 bits on the way.
#include <algorithm>
#include <numeric>

#include "moerun/expert_tree.h"
#include "tests/gpu/each_dtype.h"
#include "tests/gpu/pair.h"

using namespace moerun;
using namespace moerun::test;

namespace {

constexpr double kTolerance16 = 6e-3;
constexpr double kTolerance32 = 1e-5;

ExpertSlots make_slots(Side& side, const std::vector<int32_t>& local_slot) {
  ExpertSlots slots;
  slots.local_slot = side.put_ints(local_slot);
  slots.host_local_slot = local_slot;
  slots.num_local = std::count_if(local_slot.begin(), local_slot.end(), [](int32_t s) { return s >= 0; });
  return slots;
}

}  // namespace

TEST_CASE("gpu: embed, rms_norm, add_rms_norm, tree_sum, gather_rows, silu_mul", "[gpu]") {
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Pair pair(dtype);
    for (const auto& [n, hidden] : {std::pair<int64_t, int64_t>{1, 256}, {7, 64}, {129, 2048}}) {
      CAPTURE(n, hidden);
      const Floats x = random_values(random, n * hidden, pair.dtype),
                   delta = random_values(random, n * hidden, pair.dtype),
                   weight = random_values(random, hidden, pair.dtype),
                   table = random_values(random, 50 * hidden, pair.dtype),
                   shards = random_values(random, 4 * n * hidden, pair.dtype);
      std::vector<int32_t> tokens(static_cast<size_t>(n)), rows;
      for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 50);
      for (int64_t i = n - 1; i >= 0; i -= 2) rows.push_back(static_cast<int32_t>(i));
      std::vector<Floats> results[2];
      int which = 0;
      for (Side* side : {&pair.cpu, &pair.gpu}) {
        Device& device = side->device();
        std::vector<Floats>& out = results[which++];
        const Tensor embedded = side->poisoned(n, hidden);
        device.embed(side->put(table, 50, hidden), side->put_ints(tokens), embedded);
        out.push_back(side->get(embedded));
        const Tensor host_table = device.host_tensor(50, hidden, device.dtype(), "table"),
                     from_host = side->poisoned(n, hidden);
        device.load(host_table, 0, {table.data(), DType::float32, 50, hidden, hidden});
        device.embed(host_table, side->put_ints(tokens), from_host);
        CHECK(side->get(from_host) == out.back());
        const auto uses = device.memory_table();
        CHECK(std::any_of(uses.begin(), uses.end(), [&](const MemoryUse& use) {
          return use.what == (device.host_memory() ? "table" : "table (host memory)") &&
                 use.bytes >= host_table.bytes();
        }));
        const Tensor w = side->put(weight, 1, hidden), normed = side->poisoned(n, hidden);
        const Tensor residual = side->put(x, n, hidden);
        device.rms_norm(residual, w, 1e-6F, normed);
        out.push_back(side->get(normed));
        device.add_rms_norm({residual, side->put(delta, n, hidden), w, 1e-6F, normed});
        out.push_back(side->get(residual));
        out.push_back(side->get(normed));
        const Tensor sum = side->poisoned(n, hidden);
        device.tree_sum(side->put(shards, 4 * n, hidden), 4, sum);
        out.push_back(side->get(sum));
        const Tensor gathered = side->poisoned(static_cast<int64_t>(rows.size()), hidden);
        device.gather_rows(residual, rows, gathered);
        out.push_back(side->get(gathered));
      }
      for (size_t i = 0; i < results[0].size(); ++i) {
        CAPTURE(i);
        CHECK(normalised_error(results[1][i], results[0][i]) < kTolerance16);
      }
    }
  });
}

TEST_CASE("gpu: linear and linear_tree", "[gpu]") {
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Pair pair(dtype);
    for (const auto& [n, out_features, in_features] :
         {std::array<int64_t, 3>{1, 320, 256}, {65, 512, 128}, {300, 2048, 4096}, {3, 4096, 256}}) {
      CAPTURE(n, out_features, in_features);
      const Floats x = random_values(random, n * in_features, pair.dtype),
                   w = random_values(random, out_features * in_features, pair.dtype, 0.05F),
                   b = random_values(random, out_features, pair.dtype);
      std::vector<Floats> results[2];
      int which = 0;
      for (Side* side : {&pair.cpu, &pair.gpu}) {
        Device& device = side->device();
        std::vector<Floats>& out = results[which++];
        const Matrix matrix = side->matrix(Matrix::Kind::plain, 1, out_features, in_features, w);
        const Tensor in = side->put(x, n, in_features), bias = side->put(b, 1, out_features);
        for (const Tensor* with : {static_cast<const Tensor*>(nullptr), &bias}) {
          const Tensor y = side->poisoned(n, out_features);
          device.linear(in, matrix, with, y);
          out.push_back(side->get(y));
        }
        const Tensor wide = side->poisoned(n, out_features, DType::float32);
        device.linear(in, matrix, nullptr, wide);
        out.push_back(side->get(wide));
        for (const int32_t chunks : {1, 4}) {
          const Tensor y = side->poisoned(n, out_features);
          device.linear_tree(in, matrix, chunks, y);
          out.push_back(side->get(y));
        }
      }
      for (size_t i = 0; i < results[0].size(); ++i) {
        CAPTURE(i);
        CHECK(normalised_error(results[1][i], results[0][i]) < (i == 2 ? kTolerance32 : kTolerance16));
      }
    }
  });
}

TEST_CASE("gpu: router and expert_ffn", "[gpu]") {
  struct Case {
    const char* name;
    int64_t n, hidden, intermediate, experts, k;
    int skew;  // 0: random gate; 1: all tokens on the same experts; 2: only every other expert is local
  };
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Pair pair(dtype);
    for (const Case& c :
         {Case{"one token", 1, 256, 64, 32, 8, 0}, Case{"odd", 37, 256, 64, 32, 8, 0},
          Case{"one place", 130, 256, 64, 32, 8, 1}, Case{"half local", 77, 256, 64, 32, 8, 2},
          Case{"the wide kernel", 600, 2048, 768, 16, 4, 0},
          Case{"odd, an expert without tokens", 401, 328, 72, 4, 3, 1},
          Case{"the wide kernel, many tiles an expert", 1301, 328, 72, 4, 3, 1},
          Case{"the wide kernel, half local", 710, 200, 104, 8, 2, 2}, Case{"many", 900, 512, 256, 128, 8, 0},
          Case{"more than 128 experts", 33, 256, 64, 200, 8, 0}, Case{"few experts", 19, 128, 96, 4, 2, 0}}) {
      INFO(c.name);
      const Floats x = random_values(random, c.n * c.hidden, pair.dtype),
                   gate = random_values(random, c.experts * c.hidden, pair.dtype, 0.05F);
      std::vector<int32_t> local_slot(static_cast<size_t>(c.experts), -1);
      int32_t slots_used = 0;
      for (int64_t e = 0; e < c.experts; ++e)
        if (c.skew != 2 || e % 2 == 0) local_slot[static_cast<size_t>(e)] = slots_used++;
      const Floats gate_up =
                       random_values(random, slots_used * 2 * c.intermediate * c.hidden, pair.dtype, 0.05F),
                   down = random_values(random, slots_used * c.hidden * c.intermediate, pair.dtype, 0.05F);
      std::vector<int32_t> forced(static_cast<size_t>(c.n * c.k));
      for (size_t i = 0; i < forced.size(); ++i)
        forced[i] = static_cast<int32_t>(i % static_cast<size_t>(c.k));

      std::vector<Floats> weights(2), sums(2);
      std::vector<std::vector<int32_t>> ids(2);
      for (int which = 0; which < 2; ++which) {
        Side& side = which == 0 ? pair.cpu : pair.gpu;
        const Tensor in = side.put(x, c.n, c.hidden);
        const Ints topk_ids = side.put_ints(std::vector<int32_t>(static_cast<size_t>(c.n * c.k), -7));
        const Tensor topk_weights = side.poisoned(c.n, c.k, DType::float32);
        side.device().router({.x = in,
                              .gate = side.put(gate, c.experts, c.hidden),
                              .num_experts_per_tok = static_cast<int32_t>(c.k),
                              .rule = {.normalise = true},
                              .topk_ids = topk_ids,
                              .topk_weights = topk_weights});
        ids[static_cast<size_t>(which)] = side.get_ints(topk_ids);
        weights[static_cast<size_t>(which)] = side.get(topk_weights);
        // Both sides compute the CPU's choice, so that a near tie in the router does not look like an error
        // of the experts.
        const ExpertSlots slots = make_slots(side, local_slot);
        const Matrix w13 =
            side.matrix(Matrix::Kind::expert_gate_up, slots_used, 2 * c.intermediate, c.hidden, gate_up);
        const Matrix w2 = side.matrix(Matrix::Kind::expert_down, slots_used, c.hidden, c.intermediate, down);
        const Tensor out = side.poisoned(c.n, c.hidden);
        side.device().expert_ffn({.in = {in, side.put_ints(c.skew == 1 ? forced : ids[0]),
                                         side.put(weights[0], c.n, c.k, DType::float32)},
                                  .gate_up = &w13,
                                  .down = &w2,
                                  .slots = &slots,
                                  .out = out});
        sums[static_cast<size_t>(which)] = side.get(out);
      }
      size_t different = 0;
      for (size_t i = 0; i < ids[0].size(); ++i) different += ids[0][i] != ids[1][i];
      CHECK(different <= ids[0].size() / 100);  // near ties of float32 sums in another order
      if (different == 0) CHECK(normalised_error(weights[1], weights[0]) < kTolerance32);
      CHECK(normalised_error(sums[1], sums[0]) < kTolerance16);
    }
  });
}

TEST_CASE(
    "gpu: expert_ffn leaves a partial sum for each subtree that is local, skips ids of -1, and leaves alone "
    "what another rank computes though it is here",
    "[gpu]") {
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Pair pair(dtype);
    constexpr int64_t n = 53, hidden = 256, width = 64, experts = 32, k = 8;
    std::vector<int32_t> local_slot(experts, -1), ids, named_ids, marked_ids;
    int32_t slots_used = 0;
    for (int32_t& slot : local_slot)
      if (random() % 2 == 0) slot = slots_used++;
    // Partial sums of a token of which `marked` says what is computed here.
    const auto partials_of = [](std::vector<int32_t> marked) {
      std::sort(marked.begin(), marked.end(),
                [](int32_t a, int32_t b) { return tree_position(a) < tree_position(b); });
      std::vector<int32_t> places, here;
      for (const int32_t id : marked) {
        places.push_back(tree_position(id));
        here.push_back(id >= 0);
      }
      std::vector<ExpertSpan> spans;
      cut_into_spans(places, here, spans);
      return static_cast<int32_t>(std::count_if(spans.begin(), spans.end(), [&](const ExpertSpan& span) {
        return here[static_cast<size_t>(span.first)] != 0;
      }));
    };
    std::vector<int32_t> named_offsets{0}, marked_offsets{0};
    for (int64_t token = 0; token < n; ++token) {
      std::vector<int32_t> all(experts), local, computed;
      std::iota(all.begin(), all.end(), 0);
      std::shuffle(all.begin(), all.end(), random);
      all.resize(k);
      for (const int32_t id : all) {
        const bool is_local = local_slot[static_cast<size_t>(id)] >= 0;
        named_ids.push_back(id);
        ids.push_back(is_local ? id : -1);
        local.push_back(is_local ? id : elsewhere(id));
        // Some that are here have copies, and another rank computes this token's.
        computed.push_back(is_local && random() % 3 > 0 ? id : elsewhere(id));
      }
      marked_ids.insert(marked_ids.end(), computed.begin(), computed.end());
      named_offsets.push_back(named_offsets.back() + partials_of(local));
      marked_offsets.push_back(marked_offsets.back() + partials_of(computed));
    }
    const Floats x = random_values(random, n * hidden, pair.dtype),
                 weights = random_values(random, n * k, DType::float32),
                 gate_up = random_values(random, slots_used * 2 * width * hidden, pair.dtype, 0.05F),
                 down = random_values(random, slots_used * hidden * width, pair.dtype, 0.05F);
    std::vector<Floats> results[2];
    for (int which = 0; which < 2; ++which) {
      Side& side = which == 0 ? pair.cpu : pair.gpu;
      const ExpertSlots slots = make_slots(side, local_slot);
      const Matrix w13 = side.matrix(Matrix::Kind::expert_gate_up, slots_used, 2 * width, hidden, gate_up);
      const Matrix w2 = side.matrix(Matrix::Kind::expert_down, slots_used, hidden, width, down);
      const auto run = [&](const std::vector<int32_t>& topk_ids, int64_t rows,
                           const std::vector<int32_t>& offsets) {
        const Tensor out = side.poisoned(rows, hidden);
        side.device().expert_ffn(
            {.in = {side.put(x, n, hidden), side.put_ints(topk_ids), side.put(weights, n, k, DType::float32)},
             .gate_up = &w13,
             .down = &w2,
             .slots = &slots,
             .out = out,
             .partial_offsets = offsets.empty() ? Ints{} : side.put_ints(offsets)});
        results[which].push_back(side.get(out));
      };
      run(named_ids, named_offsets.back(), named_offsets);
      run(ids, n, {});
      run(marked_ids, marked_offsets.back(), marked_offsets);
    }
    for (size_t i = 0; i < results[0].size(); ++i) {
      CAPTURE(i);
      CHECK(normalised_error(results[1][i], results[0][i]) < kTolerance16);
    }
  });
}

TEST_CASE("gpu: rope_and_cache and attention, prefill in chunks and decode", "[gpu]") {
  struct Shape {
    int32_t heads, kv_heads, head_dim;
    bool norm;
  };
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Pair pair(dtype);
    for (const Shape& s : {Shape{8, 4, 64, true}, Shape{32, 4, 128, true}, Shape{4, 4, 128, true},
                           Shape{2, 1, 64, true}, Shape{32, 8, 128, false}, Shape{4, 2, 64, false}}) {
      CAPTURE(s.heads, s.kv_heads, s.head_dim, s.norm);
      constexpr int32_t kBlock = 64, kBlocks = 64, kMaxLen = 1024;
      const int64_t width = (s.heads + 2 * s.kv_heads) * s.head_dim;
      const Floats q_norm = random_values(random, s.head_dim, pair.dtype),
                   k_norm = random_values(random, s.head_dim, pair.dtype);
      Floats cos(static_cast<size_t>(kMaxLen * s.head_dim / 2)), sin(cos.size());
      for (size_t i = 0; i < cos.size(); ++i) {
        const double angle =
            static_cast<double>(i / static_cast<size_t>(s.head_dim / 2)) *
            std::pow(1e6, -2.0 * static_cast<double>(i % static_cast<size_t>(s.head_dim / 2)) / s.head_dim);
        cos[i] = static_cast<float>(std::cos(angle));
        sin[i] = static_cast<float>(std::sin(angle));
      }
      // Sequences: [context so far, new tokens]. The first step fills the contexts, the second continues some
      // and decodes others.
      const std::vector<std::array<int32_t, 2>> first{{0, 70}, {0, 1}, {0, 600}, {0, 64}, {0, 333}};
      const std::vector<std::array<int32_t, 2>> second{{70, 75}, {1, 1}, {600, 1}, {64, 1}, {333, 1}};
      std::vector<std::vector<int32_t>> blocks(first.size());
      std::vector<int32_t> pool(kBlocks);
      std::iota(pool.begin(), pool.end(), 0);
      std::shuffle(pool.begin(), pool.end(), random);
      size_t taken = 0;
      for (size_t i = 0; i < first.size(); ++i)
        for (int32_t b = 0; b < (second[i][0] + second[i][1] + kBlock - 1) / kBlock; ++b)
          blocks[i].push_back(pool[taken++]);
      const auto make_plan = [&](const std::vector<std::array<int32_t, 2>>& step, int32_t prefills) {
        StepPlan plan;
        plan.max_blocks = 12;
        plan.num_prefill_seqs = prefills;
        plan.cu_seqlens_q.push_back(0);
        for (size_t i = 0; i < step.size(); ++i) {
          for (int32_t t = 0; t < step[i][1]; ++t) {
            const int32_t position = step[i][0] + t;
            plan.tokens.push_back(0);
            plan.positions.push_back(position);
            plan.slot_mapping.push_back(blocks[i][static_cast<size_t>(position / kBlock)] * kBlock +
                                        position % kBlock);
          }
          plan.cu_seqlens_q.push_back(plan.num_tokens());
          plan.context_lens.push_back(step[i][0] + step[i][1]);
          for (int32_t b = 0; b < plan.max_blocks; ++b)
            plan.block_table.push_back(
                static_cast<size_t>(b) < blocks[i].size() ? blocks[i][static_cast<size_t>(b)] : -1);
        }
        return plan;
      };
      const StepPlan plans[2] = {make_plan(first, 5), make_plan(second, 1)};
      const Floats qkv[2] = {random_values(random, plans[0].num_tokens() * width, pair.dtype),
                             random_values(random, plans[1].num_tokens() * width, pair.dtype)};
      std::vector<Floats> results[2];
      int which = 0;
      for (Side* side : {&pair.cpu, &pair.gpu}) {
        Device& device = side->device();
        const int64_t rows = int64_t{kBlocks} * s.kv_heads * kBlock;
        const KvLayer kv{side->put(Floats(static_cast<size_t>(rows * s.head_dim), 0), rows, s.head_dim),
                         side->put(Floats(static_cast<size_t>(rows * s.head_dim), 0), rows, s.head_dim),
                         s.kv_heads, kBlock, s.head_dim};
        const Tensor c = side->put(cos, kMaxLen, s.head_dim / 2, DType::float32),
                     si = side->put(sin, kMaxLen, s.head_dim / 2, DType::float32);
        for (int step = 0; step < 2; ++step) {
          const DevicePlan plan = device.upload(plans[step]);
          const Tensor q = side->poisoned(plan.num_tokens, s.heads * s.head_dim),
                       out = side->poisoned(plan.num_tokens, s.heads * s.head_dim);
          device.rope_and_cache(plan, {.qkv = side->put(qkv[step], plan.num_tokens, width),
                                       .q_norm = s.norm ? side->put(q_norm, 1, s.head_dim) : Tensor{},
                                       .k_norm = s.norm ? side->put(k_norm, 1, s.head_dim) : Tensor{},
                                       .cos = c,
                                       .sin = si,
                                       .q = q,
                                       .kv = kv,
                                       .num_heads = s.heads,
                                       .eps = 1e-6F});
          device.attention(plan, {.q = q,
                                  .kv = kv,
                                  .out = out,
                                  .num_heads = s.heads,
                                  .scale = 1 / std::sqrt(static_cast<float>(s.head_dim))});
          results[which].push_back(side->get(q));
          results[which].push_back(side->get(out));
        }
        results[which].push_back(side->get(kv.k));
        results[which].push_back(side->get(kv.v));
        ++which;
      }
      for (size_t i = 0; i < results[0].size(); ++i) {
        CAPTURE(i);
        CHECK(normalised_error(results[1][i], results[0][i]) < kTolerance16);
      }
    }
  });
}

TEST_CASE("gpu: copy_rows copies the first tokens of blocks in every layer, and nothing else", "[gpu]") {
  for_each_dtype([](DType dtype, std::mt19937_64& random) {
    Pair pair(dtype);
    constexpr int32_t kHeads = 4, kBlockSize = 64, kDim = 128, kBlocks = 12, kLayers = 3;
    constexpr int64_t kRows = int64_t{kBlocks} * kHeads * kBlockSize;
    const std::vector<int32_t> copies{3, 0, 1, 5, 11, 63, 3, 7, 40, 9, 2, 64};
    std::vector<Floats> values;
    for (int i = 0; i < 2 * kLayers; ++i) values.push_back(random_values(random, kRows * kDim, dtype));
    std::vector<Floats> results[2];
    int which = 0;
    for (Side* side : {&pair.cpu, &pair.gpu}) {
      std::vector<KvLayer> cache;
      for (size_t i = 0; i < values.size(); i += 2)
        cache.push_back({.k = side->put(values[i], kRows, kDim),
                         .v = side->put(values[i + 1], kRows, kDim),
                         .num_kv_heads = kHeads,
                         .block_size = kBlockSize,
                         .head_dim = kDim});
      side->device().copy_rows(cache, copies);
      side->device().synchronize();
      for (const KvLayer& layer : cache)
        for (const Tensor& half : {layer.k, layer.v}) results[which].push_back(side->get(half));
      ++which;
    }
    for (size_t i = 0; i < copies.size(); i += 3)
      for (Floats& half : values)
        for (int32_t head = 0; head < kHeads; ++head) {
          const auto first = [&](int32_t block) {
            return half.begin() + (int64_t{block} * kHeads + head) * kBlockSize * kDim;
          };
          std::copy_n(first(copies[i]), copies[i + 2] * kDim, first(copies[i + 1]));
        }
    CHECK(results[0] == values);
    CHECK(results[1] == values);
  });
}
