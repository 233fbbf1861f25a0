// The GPU exchanges between real ranks: each rank's tokens through dispatch, its experts and combine must
// come out as the same bits that this rank computes when it holds every expert by itself.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <numeric>

#include "comm/mpi_exchange.h"
#include "comm/nccl_exchange.h"
#include "comm/p2p_exchange.h"
#include "layout/topology.h"
#include "tests/gpu/side.h"
#include "tests/gpu_mpi/suite.h"

namespace moerun::gpu_mpi_test {

namespace {

struct Shape {
  int num_experts, k;
  int64_t hidden, width;
};

enum class Routing { random, one_expert, one_rank, skewed };
enum class Load { even, uneven, one_rank, none };

constexpr int kMaxTokens = 48;

int32_t tokens_at(Load load, int rank, int step) {
  switch (load) {
    case Load::even:
      return kMaxTokens;
    case Load::uneven:
      return (rank * 17 + step * 5 + 1) % (kMaxTokens + 1);
    case Load::one_rank:
      return rank == 0 ? 29 : 0;
    case Load::none:
      return 0;
  }
  return 0;
}

HostMatrix dummy(uint64_t key, int64_t rows, int64_t cols, float scale) {
  return {.rows = rows, .cols = cols, .row_stride = cols, .dummy = {.key = key, .scale = scale}};
}

/// A set of experts with their weights on the device: what a layer's expert_ffn needs.
struct Experts {
  Experts(Device& device, const Shape& shape, const std::vector<int32_t>& ids) {
    const auto count = static_cast<int64_t>(ids.size());
    gate_up = device.matrix(
        {Matrix::Kind::expert_gate_up, count, 2 * shape.width, shape.hidden, device.dtype()}, "experts");
    down = device.matrix({Matrix::Kind::expert_down, count, shape.hidden, shape.width, device.dtype()},
                         "experts");
    slots.host_local_slot.assign(static_cast<size_t>(shape.num_experts), -1);
    slots.num_local = count;
    for (int64_t slot = 0; slot < count; ++slot) {
      const int32_t id = ids[static_cast<size_t>(slot)];
      const auto key = static_cast<uint64_t>(id);
      device.load(gate_up, slot, 0, dummy(2 * key, 2 * shape.width, shape.hidden, 0.1F));
      device.load(down, slot, 0, dummy(2 * key + 1, shape.hidden, shape.width, 0.1F));
      slots.host_local_slot[static_cast<size_t>(id)] = static_cast<int32_t>(slot);
    }
    slots.local_slot = device.ints(shape.num_experts, "experts");
    device.copy_to_device(slots.local_slot.data, slots.host_local_slot.data(),
                          slots.host_local_slot.size() * 4);
    device.synchronize();
  }
  Matrix gate_up, down;
  ExpertSlots slots;
};

/// One rank's side of a case: device, experts, buffers.
class Layer {
 public:
  Layer(const MpiEnv& env, Device& device, const Shape& shape, const ExpertMap& map)
      : env_(env),
        device_(device),
        shape_(shape),
        map_(map),
        mine_(device, shape, map.experts_of(env.rank())),
        all_(device, shape, every(shape.num_experts)),
        x_(device.tensor(kMaxTokens, shape.hidden, device.dtype(), "x")),
        out_(device.tensor(kMaxTokens, shape.hidden, device.dtype(), "out")),
        expected_(device.tensor(kMaxTokens, shape.hidden, device.dtype(), "expected")),
        weights_(device.tensor(kMaxTokens, shape.k, DType::float32, "weights")),
        ids_(device.ints(kMaxTokens * shape.k, "ids")) {}

  /// A step of this many tokens a rank; `recorded`: through Device::run, which records graphs.
  std::string step(ExpertExchange& exchange, Routing routing, const std::vector<int32_t>& tokens_of_rank,
                   int seed, bool recorded) {
    const int32_t n = tokens_of_rank[static_cast<size_t>(env_.rank())];
    draw(routing, n, seed);
    exchange.begin_step(tokens_of_rank);
    const auto body = [&] { layer(exchange, n); };
    if (recorded && exchange.capturable())
      device_.run({.num_tokens = n,
                   .num_exchange_tokens = *std::max_element(tokens_of_rank.begin(), tokens_of_rank.end())},
                  body);
    else
      body();
    if (n == 0) {
      device_.synchronize();
      return "";
    }
    device_.expert_ffn({.in = tokens(n),
                        .gate_up = &all_.gate_up,
                        .down = &all_.down,
                        .slots = &all_.slots,
                        .out = expected_.first(n)});
    const size_t bytes = out_.first(n).bytes();
    std::vector<char> got(bytes), want(bytes);
    device_.copy_to_host(got.data(), out_.data, bytes);
    device_.copy_to_host(want.data(), expected_.data, bytes);
    for (size_t i = 0; i < bytes; ++i)
      if (got[i] != want[i])
        return fmt::format("token {}, byte {}: other bits than with every expert on one rank",
                           i / out_.row_bytes(), i % out_.row_bytes());
    return "";
  }

 private:
  static std::vector<int32_t> every(int num_experts) {
    std::vector<int32_t> ids(static_cast<size_t>(num_experts));
    std::iota(ids.begin(), ids.end(), 0);
    return ids;
  }
  Routed tokens(int32_t n) const {
    return {
        .x = x_.first(n), .topk_ids = {ids_.data, int64_t{n} * shape_.k}, .topk_weights = weights_.first(n)};
  }

  void layer(ExpertExchange& exchange, int32_t n) {
    const Dispatched here = exchange.dispatch(tokens(n), out_.first(n));
    if (here.tokens.x.rows > 0)
      device_.expert_ffn({.in = here.tokens,
                          .gate_up = &mine_.gate_up,
                          .down = &mine_.down,
                          .slots = &mine_.slots,
                          .out = here.partials,
                          .partial_offsets = here.partial_offsets,
                          .pairs = here.pairs});
    exchange.combine(out_.first(n));
  }

  void draw(Routing routing, int32_t n, int seed) {
    std::vector<int32_t> ids;
    std::vector<float> weights;
    std::vector<uint16_t> x;
    std::vector<int32_t> order = every(shape_.num_experts);
    for (int32_t t = 0; t < n; ++t) {
      const uint64_t key = static_cast<uint64_t>(seed) * 1000003 +
                           static_cast<uint64_t>(env_.rank()) * 10007 + static_cast<uint64_t>(t);
      const auto score = [&](int32_t e) {
        const float random = mpi_test::value_of(key, static_cast<uint64_t>(e));
        switch (routing) {
          case Routing::random:
            return random;
          case Routing::one_expert:
            return e == 3 ? 2.0F : random;
          case Routing::one_rank:
            return -static_cast<float>(e);
          case Routing::skewed:
            return random - 0.3F * static_cast<float>(e % 7);
        }
        return 0.0F;
      };
      std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return score(a) > score(b); });
      ids.insert(ids.end(), order.begin(), order.begin() + shape_.k);
      for (int i = 0; i < shape_.k; ++i)
        weights.push_back(0.1F + std::abs(mpi_test::value_of(key, 7777 + static_cast<uint64_t>(i))));
      for (int64_t i = 0; i < shape_.hidden; ++i)
        x.push_back(test::narrow(device_.dtype(), mpi_test::value_of(key, 99999 + static_cast<uint64_t>(i))));
    }
    const std::vector<char> poison(out_.bytes(), '\xff');  // NaN
    device_.copy_to_device(out_.data, poison.data(), poison.size());
    if (n > 0) {
      device_.copy_to_device(x_.data, x.data(), x.size() * 2);
      device_.copy_to_device(ids_.data, ids.data(), ids.size() * 4);
      device_.copy_to_device(weights_.data, weights.data(), weights.size() * 4);
    }
    device_.synchronize();  // the vectors go
  }

  const MpiEnv& env_;
  Device& device_;
  Shape shape_;
  const ExpertMap& map_;
  Experts mine_, all_;
  Tensor x_, out_, expected_, weights_;
  Ints ids_;
};

std::unique_ptr<ExpertExchange> make(const std::string& kind, const MpiEnv& env, Device& device,
                                     const ExpertMap& map, const Shape& shape) {
  const ExchangeOptions options{.rank_of = map.ranks(),
                                .max_tokens = kMaxTokens,
                                .hidden = static_cast<int32_t>(shape.hidden),
                                .num_experts_per_tok = shape.k};
  if (kind == "p2p") return std::make_unique<P2pExchange>(env.world(), device, options);
  if (kind == "mpi")
    return std::make_unique<MpiExchange>(env.world(), map, device,
                                         MpiExchange::Options{.max_tokens = kMaxTokens,
                                                              .hidden = static_cast<int32_t>(shape.hidden),
                                                              .num_experts_per_tok = shape.k});
  const NcclExchange::Choice choice = kind == "nccl by counts"
                                          ? NcclExchange::Choice{.min_ranks = 1, .min_tokens = 1}
                                          : NcclExchange::Choice{};
  return std::make_unique<NcclExchange>(env.world(), device, options, nullptr, choice);
}

}  // namespace

void test_exchanges(const Place& place, mpi_test::Suite& suite) {
  for (const Shape& shape : {Shape{32, 8, 256, 128}, Shape{128, 8, 2048, 768}, Shape{30, 4, 72, 40}}) {
    const std::unique_ptr<Device> device = make_test_device(place, size_t{4} << 30);
    const ExpertMap map(shape.num_experts, place.env->size());
    device->reserve({.max_num_batched_tokens = kMaxTokens,
                     .max_num_seqs = 1,
                     .max_model_len = 64,
                     .max_routed_tokens = int64_t{kMaxTokens} * place.env->size(),
                     .max_logit_rows = 1,
                     .num_heads = 1,
                     .num_kv_heads = 1,
                     .head_dim = 64,
                     .hidden_size = shape.hidden,
                     .vocab_size = 32,
                     .num_experts = shape.num_experts,
                     .num_experts_per_tok = shape.k,
                     .num_local_experts = shape.num_experts,
                     .moe_intermediate_size = shape.width});
    Layer layer(*place.env, *device, shape, map);
    for (const std::string& kind : place.exchanges) {
      const bool regular = one_subtree_a_rank(map.ranks(), place.env->size());
      if (!regular && kind.starts_with("nccl")) continue;  // refused, and says so
      const auto exchange = make(kind, *place.env, *device, map, shape);
      const auto title = [&](const char* what) {
        return fmt::format("{} over {} ranks, {} experts, hidden {}: {}", kind, place.env->size(),
                           shape.num_experts, shape.hidden, what);
      };
      int seed = 0;
      for (const Routing routing : {Routing::random, Routing::one_expert, Routing::one_rank, Routing::skewed})
        suite.run(title(fmt::format("routing {}", static_cast<int>(routing)).c_str()), [&] {
          std::string fault;
          // Each load more than once: a shape runs, is recorded, and is replayed.
          for (int step = 0; step < 12; ++step) {
            const auto load = static_cast<Load>(step % 4);
            std::vector<int32_t> tokens_of_rank;
            for (int r = 0; r < place.env->size(); ++r)
              tokens_of_rank.push_back(tokens_at(load, r, step % 4));
            const std::string here = layer.step(*exchange, routing, tokens_of_rank, ++seed, true);
            if (fault.empty()) fault = here;  // this rank goes on, since its peers do
          }
          return fault;
        });
      if (exchange->capturable() && shape.num_experts == 32)
        suite.run(title(fmt::format("{} replays with changing routing", place.replays).c_str()), [&] {
          const std::vector<int32_t> tokens_of_rank(static_cast<size_t>(place.env->size()), 13);
          std::string fault;
          for (int replay = 0; replay < place.replays; ++replay) {
            const std::string here = layer.step(*exchange, Routing::random, tokens_of_rank, ++seed, true);
            if (fault.empty()) fault = here;
          }
          return fault;
        });
      suite.run(title("time is measured"), [&]() -> std::string {
        return kind == "mpi" || exchange->seconds() > 0 ? "" : "no time has passed in the exchange";
      });
    }
  }
}

}  // namespace moerun::gpu_mpi_test
