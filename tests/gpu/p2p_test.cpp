// The one-sided exchange with N virtual ranks in this process, all their windows on one GPU, a stream each:
// the same struct and the same kernels as between processes and GPUs. Data are compared exactly; sums with
// the tree over ranks computed here.
#include <bit>
#include <numeric>
#include <random>

#include "kernels/cuda/p2p_exchange.h"
#include "tests/catch.h"
#include "tests/gpu/device_array.h"
#include "tests/gpu/side.h"

using namespace moerun;
using namespace moerun::test;

namespace {

constexpr DType kType = DType::bfloat16;

/// One virtual rank: its window, its tokens and its stream.
struct Rank {
  P2pArgs args;
  char* window = nullptr;
  Stream stream;
  uint16_t *x = nullptr, *partial = nullptr, *out = nullptr;
  int32_t *ids = nullptr, *every_slot = nullptr;
  float* weights = nullptr;
};

struct World {
  /// With `pairs` the experts lie scattered over the ranks, which need be no power of two.
  World(int ranks, int max_tokens, int hidden, int k, int experts, bool pairs = false)
      : layout{.ranks = ranks,
               .max_tokens = max_tokens,
               .hidden = hidden,
               .k = k,
               .element_bytes = 2,
               .pairs = pairs},
        experts(experts),
        arena(static_cast<size_t>(ranks) *
              (2 * layout.bytes() + layout.rows() * layout.row_bytes() * static_cast<size_t>(k) +
               (size_t{8} << 20))),
        fault_buffer(sizeof(P2pFault)),
        ranks(static_cast<size_t>(ranks)) {
    std::vector<char*> windows;
    for (Rank& rank : this->ranks) windows.push_back(rank.window = device_array<char>(arena, layout.bytes()));
    CUDA_CHECK(cudaMemset(windows[0], 0, static_cast<size_t>(ranks) * P2pLayout::aligned(layout.bytes())));
    rank_of.resize(static_cast<size_t>(experts));
    for (int e = 0; e < experts; ++e)
      rank_of[static_cast<size_t>(e)] = pairs ? (e * 5 + e / 3) % ranks : e / (experts / ranks);
    for (size_t r = 0; r < this->ranks.size(); ++r) {
      Rank& rank = this->ranks[r];
      auto* const table = device_array<char*>(arena, windows.size());
      auto* const map = device_array<int32_t>(arena, rank_of.size());
      put(table, windows);
      put(map, rank_of);
      rank.args = {.layout = layout,
                   .rank = static_cast<int32_t>(r),
                   .windows = table,
                   .rank_of = map,
                   .epoch = device_array<uint64_t>(arena, 1),
                   .blocks_done = device_array<uint32_t>(arena, 2),
                   .fault = reinterpret_cast<P2pFault*>(fault_buffer.data()),
                   .deadline_ns = 5'000'000'000ull,
                   .dtype = kType};
      put(rank.args.epoch, std::vector<uint64_t>{0});
      put(rank.args.blocks_done, std::vector<uint32_t>{0, 0});
      const auto tokens = static_cast<size_t>(max_tokens), width = static_cast<size_t>(hidden);
      rank.x = device_array<uint16_t>(arena, tokens * width);
      rank.out = device_array<uint16_t>(arena, tokens * width);
      rank.partial = device_array<uint16_t>(arena, partial_rows(max_tokens) * width);
      rank.every_slot = device_array<int32_t>(arena, rank_of.size());
      put(rank.every_slot, std::vector<int32_t>(rank_of.size()));
      rank.ids = device_array<int32_t>(arena, tokens * static_cast<size_t>(k));
      rank.weights = device_array<float>(arena, tokens * static_cast<size_t>(k));
    }
  }
  /// Rows of partial sums that a rank makes in a step of so many tokens a rank.
  size_t partial_rows(int step) const {
    return static_cast<size_t>(layout.ranks * step) * static_cast<size_t>(layout.pairs ? layout.k : 1);
  }

  P2pLayout layout;
  int experts;
  Arena arena;
  PinnedBuffer fault_buffer;
  std::vector<int32_t> rank_of;
  std::vector<Rank> ranks;
};

void dispatch(Rank& rank, int tokens, int step) {
  launch_p2p_dispatch(
      rank.args,
      {.x = rank.x, .ids = rank.ids, .weights = rank.weights, .num_tokens = tokens, .step_tokens = step},
      rank.stream);
}

void combine(Rank& rank, int tokens, int step) {
  launch_p2p_return(rank.args, rank.partial, step, rank.stream);
  launch_p2p_sum({.exchange = &rank.args,
                  .own_window = rank.window,
                  .every_slot = rank.every_slot,
                  .ids = rank.ids,
                  .out = rank.out,
                  .num_tokens = tokens,
                  .step_tokens = step},
                 rank.stream);
}

enum class Routing { random, one_expert, one_rank, skewed };

std::vector<int32_t> route(std::mt19937_64& random, Routing routing, const World& world, int tokens) {
  std::vector<int32_t> all(static_cast<size_t>(world.experts)), ids;
  std::iota(all.begin(), all.end(), 0);
  const int k = world.layout.k;
  for (int t = 0; t < tokens; ++t) {
    std::shuffle(all.begin(), all.end(), random);
    if (routing == Routing::skewed)
      std::stable_sort(all.begin(), all.end(), [](int a, int b) { return a % 7 < b % 7; });
    if (routing == Routing::one_expert) std::swap(all[0], *std::find(all.begin(), all.end(), 3));
    if (routing == Routing::one_rank) std::sort(all.begin(), all.end());
    ids.insert(ids.end(), all.begin(), all.begin() + k);
  }
  return ids;
}

/// The binary tree over the nodes' places, each node rounded, empty ones left out.
Floats tree(std::vector<Floats> nodes) {
  nodes.resize(std::bit_ceil(nodes.size()));
  while (nodes.size() > 1) {
    std::vector<Floats> next;
    for (size_t i = 0; i < nodes.size(); i += 2) {
      const Floats &left = nodes[i], &right = nodes[i + 1];
      Floats sum = left.empty() ? right : left;
      if (!left.empty() && !right.empty())
        for (size_t j = 0; j < sum.size(); ++j) sum[j] = round_to(kType, left[j] + right[j]);
      next.push_back(std::move(sum));
    }
    nodes = std::move(next);
  }
  return nodes[0];
}

}  // namespace

TEST_CASE("gpu: the one-sided exchange moves exact data and sums in the fixed tree", "[gpu][p2p]") {
  const bool pairs = GENERATE(false, true);
  const uint64_t seed = std::random_device()();
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  struct Shape {
    int ranks, hidden, k, experts;
  };
  // One rank alone first for each width of access: a kernel that is loaded at its first launch waits for the
  // GPU, and with several ranks in one process that would be for a peer whose launch has not come yet.
  for (const Shape& shape : {Shape{1, 256, 8, 32}, Shape{1, 37, 2, 8}, Shape{2, 2048, 8, 128},
                             Shape{4, 2048, 8, 128}, Shape{8, 2048, 8, 128}, Shape{4, 37, 2, 8},
                             Shape{8, 72, 3, 16}, Shape{3, 2048, 8, 128}, Shape{6, 72, 3, 16}}) {
    if (!pairs && !std::has_single_bit(static_cast<unsigned>(shape.ranks))) continue;
    constexpr int kMaxTokens = 70;
    if (pairs && shape.hidden % 8 != 0) continue;  // moe_combine takes eight elements at a time
    World world(shape.ranks, kMaxTokens, shape.hidden, shape.k, shape.experts, pairs);
    for (const Routing routing : {Routing::random, Routing::one_expert, Routing::one_rank, Routing::skewed}) {
      for (const int step : {1, 33, kMaxTokens}) {
        CAPTURE(pairs, shape.ranks, shape.hidden, static_cast<int>(routing), step);
        const auto width = static_cast<size_t>(shape.hidden), k = static_cast<size_t>(shape.k);
        std::vector<int> counts;
        std::vector<Floats> x(world.ranks.size());
        std::vector<std::vector<int32_t>> ids(world.ranks.size());
        for (size_t r = 0; r < world.ranks.size(); ++r) {
          // Uneven tokens, and ranks without any.
          counts.push_back(
              r == 0 ? step : static_cast<int>(random() % static_cast<uint64_t>(step + 1)) * (r % 3 != 2));
          x[r] = random_values(random, static_cast<int64_t>(static_cast<size_t>(counts[r]) * width), kType);
          ids[r] = route(random, routing, world, counts[r]);
          std::vector<uint16_t> raw;
          for (const float value : x[r]) raw.push_back(narrow(kType, value));
          put(world.ranks[r].x, raw);
          put(world.ranks[r].ids, ids[r]);
          put(world.ranks[r].weights, Floats(ids[r].size(), 0.125F));
        }
        for (size_t r = 0; r < world.ranks.size(); ++r) {
          Rank& rank = world.ranks[r];
          dispatch(rank, counts[r], step);
        }
        CUDA_CHECK(cudaDeviceSynchronize());

        // What arrived, and partial sums made from it: row · (rank + 1), or for each expert row · (id + 1);
        // NaN where nothing was due.
        const size_t rows = world.ranks.size() * static_cast<size_t>(step);
        bool exact = true;
        for (size_t d = 0; d < world.ranks.size(); ++d) {
          const char* const window = world.ranks[d].window;
          const auto tokens = get<uint16_t>(window + world.layout.tokens(), rows * width);
          const auto arrived = get<int32_t>(window + world.layout.ids(), rows * k);
          std::vector<uint16_t> partial(world.partial_rows(step) * width, narrow(kType, std::nanf("")));
          const auto fill = [&](size_t to, const float* token, int32_t factor) {
            for (size_t j = 0; j < width; ++j)
              partial[to * width + j] = narrow(kType, token[j] * static_cast<float>(factor));
          };
          for (size_t s = 0; s < world.ranks.size(); ++s)
            for (size_t t = 0; t < static_cast<size_t>(step); ++t) {
              const size_t row = s * static_cast<size_t>(step) + t;
              bool due = false;
              for (size_t i = 0; i < k; ++i) {
                const bool real = t < static_cast<size_t>(counts[s]);
                const int32_t id = real ? ids[s][t * k + i] : -1;
                const bool here = real && world.rank_of[static_cast<size_t>(id)] == static_cast<int32_t>(d);
                exact &= arrived[row * k + i] == (here ? id : -1);
                due |= here;
                if (here && pairs) fill(row * k + i, &x[s][t * width], id + 1);
              }
              if (!due) continue;
              for (size_t j = 0; j < width; ++j)
                exact &= tokens[row * width + j] == narrow(kType, x[s][t * width + j]);
              if (!pairs) fill(row, &x[s][t * width], static_cast<int32_t>(d) + 1);
            }
          put(world.ranks[d].partial, partial);
        }
        CHECK(exact);
        for (size_t r = 0; r < world.ranks.size(); ++r) {
          Rank& rank = world.ranks[r];
          combine(rank, counts[r], step);
        }
        CUDA_CHECK(cudaDeviceSynchronize());
        bool same = true;
        for (size_t s = 0; s < world.ranks.size(); ++s) {
          const auto out = get<uint16_t>(world.ranks[s].out, static_cast<size_t>(counts[s]) * width);
          for (size_t t = 0; t < static_cast<size_t>(counts[s]); ++t) {
            std::vector<Floats> nodes(pairs ? world.rank_of.size() : world.ranks.size());
            for (size_t i = 0; i < k; ++i) {
              const auto id = static_cast<size_t>(ids[s][t * k + i]);
              Floats& node = nodes[pairs ? id : static_cast<size_t>(world.rank_of[id])];
              node.assign(x[s].begin() + static_cast<ptrdiff_t>(t * width),
                          x[s].begin() + static_cast<ptrdiff_t>((t + 1) * width));
            }
            for (size_t d = 0; d < nodes.size(); ++d)
              for (float& value : nodes[d]) value = round_to(kType, value * static_cast<float>(d + 1));
            const Floats expected = tree(nodes);
            for (size_t j = 0; j < width; ++j) same &= out[t * width + j] == narrow(kType, expected[j]);
          }
        }
        CHECK(same);
      }
    }
  }
}

TEST_CASE("gpu: 1,000 replays of the recorded exchange with changing routing", "[gpu][p2p]") {
  constexpr int kRanks = 4, kTokens = 24, kHidden = 256, kChoices = 8, kExperts = 32;
  std::mt19937_64 random(20261123);
  World world(kRanks, kTokens, kHidden, kChoices, kExperts);
  const auto width = static_cast<size_t>(kHidden);
  std::vector<Floats> x(kRanks);
  std::vector<cudaGraphExec_t> graphs;
  for (size_t r = 0; r < kRanks; ++r) {
    Rank& rank = world.ranks[r];
    x[r] = random_values(random, kTokens * kHidden, kType);
    std::vector<uint16_t> raw;
    for (const float value : x[r]) raw.push_back(narrow(kType, value));
    put(rank.x, raw);
    put(rank.weights, Floats(kTokens * kChoices, 0.125F));
    CUDA_CHECK(cudaStreamBeginCapture(rank.stream, cudaStreamCaptureModeThreadLocal));
    dispatch(rank, kTokens, kTokens);
    // The experts' place is taken by the identity: what comes back is the token once for each rank that has
    // an expert of it.
    CUDA_CHECK(cudaMemcpyAsync(rank.partial, rank.window + world.layout.tokens(),
                               kRanks * kTokens * width * 2, cudaMemcpyDeviceToDevice, rank.stream));
    combine(rank, kTokens, kTokens);
    cudaGraph_t graph = nullptr;
    CUDA_CHECK(cudaStreamEndCapture(rank.stream, &graph));
    CUDA_CHECK(cudaGraphInstantiate(&graphs.emplace_back(), graph, 0));
    CUDA_CHECK(cudaGraphDestroy(graph));
  }
  int wrong = 0;
  for (int replay = 0; replay < 1000; ++replay) {
    std::vector<std::vector<int32_t>> ids(kRanks);
    for (size_t r = 0; r < kRanks; ++r) {
      ids[r] = route(random, Routing::random, world, kTokens);
      put(world.ranks[r].ids, ids[r]);
    }
    for (size_t r = 0; r < kRanks; ++r) CUDA_CHECK(cudaGraphLaunch(graphs[r], world.ranks[r].stream));
    CUDA_CHECK(cudaDeviceSynchronize());
    for (size_t s = 0; s < kRanks; ++s) {
      const auto out = get<uint16_t>(world.ranks[s].out, kTokens * width);
      for (size_t t = 0; t < kTokens; ++t) {
        std::vector<Floats> nodes(kRanks);
        for (size_t i = 0; i < kChoices; ++i)
          nodes[static_cast<size_t>(world.rank_of[static_cast<size_t>(ids[s][t * kChoices + i])])].assign(
              x[s].begin() + static_cast<ptrdiff_t>(t * width),
              x[s].begin() + static_cast<ptrdiff_t>((t + 1) * width));
        const Floats expected = tree(nodes);
        for (size_t j = 0; j < width; ++j) wrong += out[t * width + j] != narrow(kType, expected[j]);
      }
    }
  }
  CHECK(wrong == 0);
  for (cudaGraphExec_t graph : graphs) CUDA_CHECK(cudaGraphExecDestroy(graph));
}

TEST_CASE("gpu: a wait for a rank that never comes names it and ends", "[gpu][p2p][.fatal]") {
  World world(2, 8, 256, 2, 8);
  Rank& rank = world.ranks[0];
  rank.args.deadline_ns = 200'000'000;
  put(rank.ids, std::vector<int32_t>(16, 5));
  dispatch(rank, 8, 8);
  CHECK(cudaDeviceSynchronize() !=
        cudaSuccess);  // the context is gone: this case runs in a process of its own
  CHECK(rank.args.fault->phase == 1);
  CHECK(rank.args.fault->peer == 1);
}
