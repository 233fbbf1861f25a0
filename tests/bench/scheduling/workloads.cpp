#include "workloads.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>

namespace moerun::bench {

namespace {

constexpr int32_t kVocabulary = 151643;

/// The distributions of <random> differ between standard libraries; its engines do not.
class Draws {
 public:
  explicit Draws(uint64_t seed) : random_(seed) {}
  double uniform() { return static_cast<double>(random_() >> 11) * 0x1p-53; }
  int32_t between(int32_t least, int32_t most) {
    return least + static_cast<int32_t>(uniform() * (most - least + 1));
  }
  /// Of a log-normal distribution with this mean; `sigma` is the deviation of its logarithm.
  int32_t log_normal(double mean, double sigma, int32_t most) {
    const double normal =
        std::sqrt(-2 * std::log(1 - uniform())) * std::cos(2 * std::numbers::pi * uniform());
    const double drawn = std::exp(std::log(mean) - sigma * sigma / 2 + sigma * normal);
    return static_cast<int32_t>(std::clamp<double>(std::round(drawn), 1, most));
  }
  std::vector<int32_t> tokens(int32_t count) {
    std::vector<int32_t> out(static_cast<size_t>(count));
    for (int32_t& token : out) token = between(0, kVocabulary - 1);
    return out;
  }

 private:
  std::mt19937_64 random_;
};

PromptRecord& add_row(Workload& to, std::vector<int32_t> prompt, int32_t max_tokens,
                      std::vector<int32_t> answers) {
  PromptRecord record{.row = to.rows.size()};
  record.prompt_token_ids = std::move(prompt);
  record.sampling.max_tokens = max_tokens;
  record.sampling.ignore_eos = !to.ends_by_token;
  record.sampling.n = static_cast<int32_t>(answers.size());
  to.rows.push_back(std::move(record));
  to.answers.push_back(std::move(answers));
  return to.rows.back();
}

Workload fixed_lengths(Draws& draws, int rows, int32_t input, int32_t output, int32_t groups = 1) {
  Workload out{.num_groups = groups};
  for (int row = 0; row < rows; ++row) add_row(out, draws.tokens(input), output, {output});
  return out;
}

/// Mean 500 in, 300 out, up to 8,192 of each.
Workload log_normal_mix(Draws& draws, bool known) {
  constexpr int32_t kMost = 8192;
  Workload out{.ends_by_token = !known};
  for (int row = 0; row < 4000; ++row) {
    const int32_t input = draws.log_normal(500, 1, kMost), output = draws.log_normal(300, 1, kMost);
    add_row(out, draws.tokens(input), known ? output : kMost, {output});
  }
  return out;
}

/// 57 preambles of 200 to 2,446 tokens, questions of some 80 under them, four endings each, one token drawn.
Workload evaluation(Draws& draws) {
  Workload out{.share_prefixes = true};
  for (int preamble = 0; preamble < 57; ++preamble) {
    const std::vector<int32_t> begin = draws.tokens(draws.between(200, 2446));
    for (int question = 0; question < 20; ++question) {
      std::vector<int32_t> asked = begin;
      const std::vector<int32_t> own = draws.tokens(draws.log_normal(80, 0.5, 400));
      asked.insert(asked.end(), own.begin(), own.end());
      for (int ending = 0; ending < 4; ++ending) {
        std::vector<int32_t> prompt = asked;
        const std::vector<int32_t> end = draws.tokens(draws.between(2, 12));
        prompt.insert(prompt.end(), end.begin(), end.end());
        add_row(out, std::move(prompt), 1, {1});
      }
    }
  }
  return out;
}

Workload several_answers(Draws& draws) {
  Workload out{.share_prefixes = true, .ends_by_token = true};
  for (int row = 0; row < 48; ++row) {
    std::vector<int32_t> answers(64);
    for (int32_t& answer : answers) answer = draws.log_normal(250, 0.8, 1024);
    add_row(out, draws.tokens(1024), 1024, std::move(answers));
  }
  return out;
}

Workload few_rows(Draws& draws) {
  Workload out{.ends_by_token = true};
  for (int row = 0; row < 96; ++row)
    add_row(out, draws.tokens(512), 2048, {draws.log_normal(400, 0.8, 2048)});
  return out;
}

/// Nine of ten answers are short, the tenth is thought over at length.
Workload long_tails(Draws& draws, int rows, int32_t groups) {
  constexpr int32_t kMost = 8192;
  Workload out{.num_groups = groups, .ends_by_token = true};
  for (int row = 0; row < rows; ++row) {
    const int32_t answer =
        draws.uniform() < 0.9 ? draws.log_normal(150, 0.6, kMost) : draws.between(2000, kMost);
    add_row(out, draws.tokens(256), kMost, {answer});
  }
  return out;
}

}  // namespace

std::vector<Workload> all_workloads(uint64_t seed) {
  std::vector<Workload> out;
  const auto seed_of = [&](size_t number) { return seed * 1000003 + number; };
  const auto add = [&](const char* name, const char* what, auto make) {
    Draws draws(seed_of(out.size()));
    Workload made = make(draws);
    made.name = name;
    made.what = what;
    out.push_back(std::move(made));
  };
  add("1024/128", "3,000 rows of one length", [](Draws& d) { return fixed_lengths(d, 3000, 1024, 128); });
  add("512/512", "2,000 rows of one length", [](Draws& d) { return fixed_lengths(d, 2000, 512, 512); });
  add("128/2048", "800 rows of one length", [](Draws& d) { return fixed_lengths(d, 800, 128, 2048); });
  add("16000/100", "150 rows of one length", [](Draws& d) { return fixed_lengths(d, 150, 16000, 100); });
  add("128/2048 x2", "1,600 rows of one length for two groups",
      [](Draws& d) { return fixed_lengths(d, 1600, 128, 2048, 2); });
  add("mix", "4,000 rows, log-normal, mean 500/300, up to 8,192, ended by a token",
      [](Draws& d) { return log_normal_mix(d, false); });
  add("mix, known", "the same rows with max_tokens and ignore_eos", [&](Draws&) {
    Draws same(seed_of(out.size() - 1));
    return log_normal_mix(same, true);
  });
  add("evaluation", "4,560 rows as MMLU's, a token each, beginnings shared", evaluation);
  add("64 answers", "48 rows of 1,024 tokens with n: 64, log-normal, mean 250", several_answers);
  add("few rows", "96 rows of 512 tokens, log-normal, mean 400", few_rows);
  add("long tails", "1,500 rows of 256 tokens; a tenth of the answers has 2,000 to 8,192",
      [](Draws& d) { return long_tails(d, 1500, 1); });
  add("long tails x4", "6,000 such rows for four groups", [](Draws& d) { return long_tails(d, 6000, 4); });
  return out;
}

}  // namespace moerun::bench
