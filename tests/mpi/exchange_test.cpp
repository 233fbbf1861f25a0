#include <algorithm>
#include <numeric>

#include "comm/mpi_exchange.h"
#include "layout/expert_copies.h"
#include "tests/mpi/harness.h"

namespace moerun::mpi_test {

namespace {

struct Case {
  int num_experts, k;
  int64_t hidden;
  DType dtype;
  bool in_place;
  enum class Routing { even, skewed, one_rank, alternating } routing;
  enum class Load { even, uneven, one_rank, none } load;
  int redundant = 0;  // copies of experts
};

float rounded(float value, DType dtype) {
  store_float(&value, dtype, 0, value);
  return load_float(&value, dtype, 0);
}

int32_t tokens_at(const Case& c, int rank, int step) {
  switch (c.load) {
    case Case::Load::even:
      return 5;
    case Case::Load::uneven:
      return (rank * 7 + step * 3) % 11;
    case Case::Load::one_rank:
      return rank == step % 2 ? 9 : 0;
    case Case::Load::none:
      return 0;
  }
  return 0;
}

constexpr int kMaxTokens = 11;

/// A token as everyone can derive it: row, experts (unsorted) and weights.
struct Token {
  std::vector<float> x;
  std::vector<int32_t> ids;
  std::vector<float> weights;
};

Token make_token(const Case& c, int rank, int step, int t) {
  const uint64_t seed = static_cast<uint64_t>(rank) * 1000003 + static_cast<uint64_t>(step) * 1009 +
                        static_cast<uint64_t>(t) + 1;
  Token token;
  for (int64_t i = 0; i < c.hidden; ++i) {
    token.x.push_back(rounded(value_of(seed, static_cast<uint64_t>(i)), c.dtype));
  }
  std::vector<int32_t> all(static_cast<size_t>(c.num_experts));
  std::iota(all.begin(), all.end(), 0);
  std::vector<float> score(all.size());
  for (size_t e = 0; e < all.size(); ++e) {
    score[e] = value_of(seed ^ 0xabcdef, e);
    if (c.routing == Case::Routing::skewed) score[e] -= 0.3f * static_cast<float>(e % 7);
    if (c.routing == Case::Routing::one_rank) score[e] = -static_cast<float>(e);
    if (c.routing == Case::Routing::alternating) score[e] += e % 2 == 0 ? 1.0f : 0.0f;
  }
  std::sort(all.begin(), all.end(), [&](int32_t a, int32_t b) {
    return score[static_cast<size_t>(a)] > score[static_cast<size_t>(b)];
  });
  token.ids.assign(all.begin(), all.begin() + c.k);
  for (int i = 0; i < c.k; ++i)
    token.weights.push_back(0.1f + std::abs(value_of(seed, 7777 + static_cast<uint64_t>(i))));
  return token;
}

/// What expert e makes of a token, element i.
float leaf(const Token& token, int32_t expert, int64_t i, DType dtype) {
  const auto at =
      static_cast<size_t>(std::find(token.ids.begin(), token.ids.end(), expert) - token.ids.begin());
  const float y = token.x[static_cast<size_t>(i)] * (1.0f + 0.37f * static_cast<float>(expert)) + 0.11f;
  return rounded(token.weights[at] * y, dtype);
}

/// The sum over the token's experts in [begin, begin + 2^level), as moerun/expert_tree.h defines it;
/// `present` says whether there are any.
float node(const Token& token, int32_t begin, int level, int64_t i, DType dtype, bool& present) {
  const int32_t end = begin + (1 << level);
  present = std::any_of(token.ids.begin(), token.ids.end(), [&](int32_t e) { return e >= begin && e < end; });
  if (!present) return 0;
  if (level == 0) return leaf(token, begin, i, dtype);
  bool left_present = false, right_present = false;
  const float left = node(token, begin, level - 1, i, dtype, left_present);
  const float right = node(token, begin + (1 << (level - 1)), level - 1, i, dtype, right_present);
  if (left_present && right_present) return rounded(left + right, dtype);
  return left_present ? left : right;
}

constexpr int kLevels = 7;

/// Where experts live, and who computes them.
struct Experts {
  Experts(const Case& c, int ranks)
      : map(c.num_experts, ranks, c.redundant), slots{.host_rank_of_turn = ranks_of_turns(map, copies(map))} {
    if (c.redundant == 0) slots.host_rank_of_turn.clear();
  }

  /// Copies of experts all over the place, each with some of its expert's turns.
  static std::vector<ExpertCopy> copies(const ExpertMap& map) {
    std::vector<ExpertCopy> out;
    std::vector<int32_t> left(static_cast<size_t>(map.num_experts()), kExpertTurns);
    for (int rank = 0; rank < map.ep_size(); ++rank) {
      auto slot = static_cast<int32_t>(map.experts_of(rank).size());
      int expert = 5 * rank;
      for (int i = 0; i < map.num_redundant_slots(rank); ++i) {
        expert = (expert + 3) % map.num_experts();
        if (map.rank_of(expert) == rank) continue;
        int32_t& turns = left[static_cast<size_t>(expert)];
        out.push_back({.expert = expert, .rank = rank, .slot = slot++, .turns = (turns + i % 2) / 2});
        turns -= out.back().turns;
      }
    }
    return out;
  }

  int rank_of(int source, int token, int32_t expert) const {
    const std::vector<int32_t>& turns = slots.host_rank_of_turn;
    return turns.empty() ? map.rank_of(expert)
                         : turns[static_cast<size_t>(expert * kExpertTurns + turn_of(source, token))];
  }

  ExpertMap map;
  ExpertSlots slots;
};

/// The largest subtrees whose experts (of this token) are all computed here, as (begin, level).
void subtrees_here(const Token& token, const std::vector<int32_t>& here, int32_t begin, int level,
                   std::vector<std::pair<int32_t, int>>& found) {
  bool any = false, all = true;
  for (const int32_t e : token.ids) {
    if (e < begin || e >= begin + (1 << level)) continue;
    any = true;
    all = all && std::count(here.begin(), here.end(), e) > 0;
  }
  if (!any) return;
  if (all) {
    found.emplace_back(begin, level);
  } else if (level > 0) {
    subtrees_here(token, here, begin, level - 1, found);
    subtrees_here(token, here, begin + (1 << (level - 1)), level - 1, found);
  }
}

/// The model's part: fills the partial sums of what arrived, checking that it arrived once and in full.
std::string compute_partials(const Case& c, const Dispatched& brought) {
  const Routed& arrived = brought.tokens;
  const Ints offsets = brought.partial_offsets;
  const Tensor partials = brought.partials;
  int64_t row = 0;
  for (int64_t t = 0; t < arrived.x.rows; ++t) {
    Token token;
    for (int64_t i = 0; i < c.hidden; ++i)
      token.x.push_back(load_float(arrived.x.data, c.dtype, t * c.hidden + i));
    const int32_t* ids = arrived.topk_ids.data + t * c.k;
    std::vector<int32_t> here;
    for (int i = 0; i < c.k; ++i) {
      token.ids.push_back(tree_position(ids[i]));
      if (ids[i] >= 0) here.push_back(ids[i]);
      token.weights.push_back(load_float(arrived.topk_weights.data, DType::float32, t * c.k + i));
    }
    std::vector<std::pair<int32_t, int>> found;
    subtrees_here(token, here, 0, kLevels, found);
    if (found.empty()) return "a token arrived that has no expert here";
    if (offsets.size > 0 && offsets.data[t] != row) return "partial_offsets";
    if (offsets.size == 0 && found.size() != 1) return "several partial sums and no partial_offsets";
    for (const auto& [begin, level] : found) {
      for (int64_t i = 0; i < c.hidden; ++i) {
        bool present = false;
        store_float(partials.data, c.dtype, row * c.hidden + i,
                    node(token, begin, level, i, c.dtype, present));
      }
      ++row;
    }
  }
  return row == partials.rows ? "" : "number of partial sums";
}

std::string check(const MpiEnv& env, const Case& c) {
  const Experts experts(c, env.size());
  MemoryDevice device(c.dtype, c.in_place);
  MpiExchange exchange(
      env.world(), experts.map, device,
      {.max_tokens = kMaxTokens, .hidden = static_cast<int32_t>(c.hidden), .num_experts_per_tok = c.k});
  const Tensor x = device.tensor(kMaxTokens, c.hidden, c.dtype, "x");
  const Tensor out = device.tensor(kMaxTokens, c.hidden, c.dtype, "out");
  const Tensor weights = device.tensor(kMaxTokens, c.k, DType::float32, "weights");
  const Ints ids = device.ints(kMaxTokens * c.k, "ids");

  std::string fault;  // the first; this rank goes on, since its peers do
  const auto note = [&fault](const std::string& text) {
    if (fault.empty()) fault = text;
  };
  for (int step = 0; step < 4; ++step) {  // steps follow each other without a barrier, like layers
    std::vector<int32_t> tokens_of_rank;
    for (int r = 0; r < env.size(); ++r) tokens_of_rank.push_back(tokens_at(c, r, step));
    const int32_t n = tokens_of_rank[static_cast<size_t>(env.rank())];
    std::vector<Token> tokens;
    for (int t = 0; t < n; ++t) {
      tokens.push_back(make_token(c, env.rank(), step, t));
      for (int64_t i = 0; i < c.hidden; ++i)
        store_float(x.data, c.dtype, t * c.hidden + i, tokens.back().x[static_cast<size_t>(i)]);
      for (int i = 0; i < c.k; ++i) {
        ids.data[t * c.k + i] = tokens.back().ids[static_cast<size_t>(i)];
        store_float(weights.data, DType::float32, t * c.k + i, tokens.back().weights[static_cast<size_t>(i)]);
      }
    }
    exchange.begin_step(tokens_of_rank);
    const Dispatched brought = exchange.dispatch({.x = x.first(n),
                                                  .topk_ids = {ids.data, n * c.k},
                                                  .topk_weights = weights.first(n),
                                                  .slots = &experts.slots},
                                                 out.first(n));
    const Routed& arrived = brought.tokens;
    // Every token of every rank that has an expert to be computed here, once, in rank order; and of its
    // experts, those.
    int64_t expected = 0;
    for (int r = 0; r < env.size(); ++r) {
      for (int t = 0; t < tokens_of_rank[static_cast<size_t>(r)]; ++t) {
        const Token token = make_token(c, r, step, t);
        std::vector<int32_t> wanted;
        for (const int32_t e : token.ids)
          wanted.push_back(experts.rank_of(r, t, e) == env.rank() ? e : elsewhere(e));
        if (std::all_of(wanted.begin(), wanted.end(), [](int32_t id) { return id < 0; })) continue;
        if (expected < arrived.x.rows) {
          if (load_float(arrived.x.data, c.dtype, expected * c.hidden) != token.x[0])
            note("another token arrived");
          if (!std::equal(wanted.begin(), wanted.end(), arrived.topk_ids.data + expected * c.k))
            note("another rank's experts are to be computed here");
        }
        ++expected;
      }
    }
    if (arrived.x.rows != expected) note(fmt::format("{} tokens arrived, not {}", arrived.x.rows, expected));
    note(compute_partials(c, brought));
    exchange.combine(out.first(n));
    for (int t = 0; t < n; ++t) {
      for (int64_t i = 0; i < c.hidden; ++i) {
        bool present = false;
        const float want = node(tokens[static_cast<size_t>(t)], 0, kLevels, i, c.dtype, present);
        if (load_float(out.data, c.dtype, t * c.hidden + i) != want) {
          note(fmt::format("step {}, token {}, element {}: other bits than on one rank", step, t, i));
        }
      }
    }
  }
  return fault;
}

}  // namespace

void test_exchange(const MpiEnv& env, Suite& suite) {
  using Routing = Case::Routing;
  using Load = Case::Load;
  for (const auto& [experts, k] : {std::pair{32, 8}, {30, 4}, {5, 2}, {128, 8}, {7, 7}, {64, 1}}) {
    for (const DType dtype : {DType::float32, DType::float16, DType::bfloat16}) {
      for (const auto& [routing, load] : {std::pair{Routing::even, Load::even},
                                          {Routing::skewed, Load::uneven},
                                          {Routing::one_rank, Load::even},
                                          {Routing::alternating, Load::one_rank},
                                          {Routing::even, Load::none}}) {
        for (const bool in_place : {true, false}) {
          for (const int redundant : {0, 3, 16}) {
            if (redundant > experts * (env.size() - 1)) continue;  // nowhere to put them
            suite.run(fmt::format("exchange: {} experts, {} copies, {} a token, {}, routing {}, load {}{}",
                                  experts, redundant, k, name_of(dtype), static_cast<int>(routing),
                                  static_cast<int>(load), in_place ? "" : ", through the host"),
                      [&] {
                        return check(env, {experts, k, 37, dtype, in_place, routing, load, redundant});
                      });
          }
        }
      }
    }
  }
  suite.run("more tokens than there is room for are refused", [&]() -> std::string {
    const ExpertMap map(8, env.size());
    MemoryDevice device(DType::float32, true);
    MpiExchange exchange(env.world(), map, device, {.max_tokens = 4, .hidden = 8, .num_experts_per_tok = 2});
    try {
      exchange.begin_step(std::vector<int32_t>(static_cast<size_t>(env.size()), 5));
    } catch (const Error&) {
      return "";
    }
    return "no error";
  });
}

}  // namespace moerun::mpi_test
