// Which tokens answers may have.
#include "engine/answer_rules.h"

#include <fstream>
#include <iterator>

#include "engine/scheduler.h"
#include "tests/catch.h"
#include "tests/unit/text_fixture.h"

using namespace moerun;

namespace {

constexpr int64_t kVocab = 4096;
const std::vector<int32_t> kEnds{4093};

std::shared_ptr<AnswerRules> rules_of(const SamplingParams& sampling, Tokenizer* tokenizer = nullptr,
                                      bool thinks = false) {
  return AnswerRules::make({.sampling = sampling,
                            .tokenizer = tokenizer,
                            .vocab_size = kVocab,
                            .eos_token_ids = kEnds,
                            .thinks = thinks});
}

/// What can be chosen behind an answer's tokens.
class Allowed {
 public:
  Allowed(AnswerProgress& progress, const std::vector<int32_t>& answer)
      : mask_(static_cast<size_t>(progress.words()), 0xdeadbeef) {
    progress.fill(answer, mask_);
  }
  bool operator[](int32_t id) const { return (mask_[static_cast<size_t>(id / 32)] >> id % 32 & 1) != 0; }
  int count() const {
    int count = 0;
    for (int32_t id = 0; id < kVocab; ++id) count += (*this)[id];
    return count;
  }

 private:
  std::vector<uint32_t> mask_;
};

Allowed allowed(const std::shared_ptr<AnswerRules>& rules, const std::vector<int32_t>& answer) {
  AnswerProgress progress(rules);
  for (const int32_t token : answer) progress.take(token);
  return {progress, answer};
}

bool forbids(const std::shared_ptr<AnswerRules>& rules, const std::vector<int32_t>& answer) {
  AnswerProgress progress(rules);
  for (const int32_t token : answer) progress.take(token);
  return progress.forbids(answer);
}

SchedulerOptions options() {
  return {.max_num_seqs = 8,
          .max_num_batched_tokens = 64,
          .block_size = 16,
          .num_blocks = 16,
          .limits = {.max_model_len = 100, .eos_token_ids = kEnds}};
}

/// The tiny model's tokenizer with the tokens of thoughts, 4094 and 4095.
Tokenizer thinking_tokenizer() {
  std::ifstream in(std::string(kTinyModel) + "/tokenizer.json");
  std::string json((std::istreambuf_iterator<char>(in)), {});
  for (const auto& [from, to] : {std::pair{"<|im_start|>", "<think>"}, {"<|im_end|>", "</think>"}})
    for (size_t at = json.find(from); at != std::string::npos; at = json.find(from, at))
      json.replace(at, std::string(from).size(), to);
  return Tokenizer::from_json(json, "tokenizer.json");
}

}  // namespace

TEST_CASE("allowed_token_ids are all that can be chosen, and there are no rules where nothing is asked",
          "[rules]") {
  CHECK(!rules_of({}));
  CHECK(!rules_of({.logit_bias = {{1, 2}}}));
  const auto rules = rules_of({.allowed_token_ids = {0, 31, 32, 4095}});
  REQUIRE(rules);
  CHECK(rules->words() == 128);
  CHECK(forbids(rules, {}));
  CHECK(allowed(rules, {1}).count() == 4);
  for (const int32_t id : {0, 31, 32, 4095}) CHECK(allowed(rules, {1})[id]);
}

TEST_CASE("the last token of a bad word cannot be chosen behind its others, and else can", "[rules]") {
  Tokenizer tokenizer = Tokenizer::load(kTinyModel);
  const std::vector<int32_t> many = tokenizer.encode("sea and sailor");
  REQUIRE(many.size() > 2);
  const auto rules = rules_of({.bad_words = {"sea and sailor"}}, &tokenizer);
  const std::vector<int32_t> before(many.begin(), many.end() - 1);
  std::vector<int32_t> behind_others{7, 8};
  behind_others.insert(behind_others.end(), before.begin(), before.end());
  for (const auto& answer : {before, behind_others}) {
    CHECK(forbids(rules, answer));
    CHECK(!allowed(rules, answer)[many.back()]);
    CHECK(allowed(rules, answer).count() == kVocab - 1);
  }
  for (const std::vector<int32_t>& answer :
       {std::vector<int32_t>{}, std::vector<int32_t>(many.begin() + 1, many.end() - 1), many}) {
    CHECK(!forbids(rules, answer));
    CHECK(allowed(rules, answer).count() == kVocab);
  }
  // A word of one token, which with a space before it is one token too: both.
  const auto short_word = rules_of({.bad_words = {"e"}}, &tokenizer);
  REQUIRE(tokenizer.encode(" e").size() == 1);
  CHECK(!allowed(short_word, {})[tokenizer.encode("e").front()]);
  CHECK(!allowed(short_word, {})[tokenizer.encode(" e").front()]);
  CHECK(allowed(short_word, {}).count() == kVocab - 2);
}

TEST_CASE("behind so many tokens of thoughts their end is chosen, and nothing is forbidden afterwards",
          "[rules]") {
  Tokenizer tokenizer = thinking_tokenizer();
  const auto markers = thinking_markers(tokenizer);
  REQUIRE(markers);
  CHECK(markers->begin == 4094);
  CHECK(markers->end == 4095);
  const SamplingParams sampling{.thinking_budget = 2};
  // Whether the model or the prompt writes the marker.
  for (const std::vector<int32_t>& begun : {std::vector<int32_t>{}, std::vector<int32_t>{4094}}) {
    std::vector<int32_t> answer = begun;
    const auto rules = rules_of(sampling, &tokenizer, true);
    for (const int32_t token : {7, 8}) {
      CHECK(!forbids(rules, answer));
      answer.push_back(token);
    }
    CHECK(forbids(rules, answer));
    CHECK(allowed(rules, answer).count() == 1);
    CHECK(allowed(rules, answer)[4095]);
    answer.push_back(4095);
    for (const int32_t token : {7, 8, 9, 10}) {
      CHECK(!forbids(rules, answer));
      answer.push_back(token);
    }
  }
  CHECK(forbids(rules_of({.thinking_budget = 0}, &tokenizer, true), {}));
  CHECK(!forbids(rules_of({.thinking_budget = 0}, &tokenizer, false), {1, 2, 3}));
}

TEST_CASE("a plan has a mask for each row that needs one, which its answers drawn at once share", "[rules]") {
  const auto sequence = [&](uint64_t row, SamplingParams sampling) {
    sampling.max_tokens = 9;
    auto rules = rules_of(sampling);
    return Sequence({.row = row, .sampling = sampling}, {1, 2, static_cast<int32_t>(3 + row)}, nullptr,
                    std::move(rules));
  };
  Scheduler scheduler(options());
  scheduler.add(sequence(0, {.n = 2, .allowed_token_ids = {5, 6}}));
  scheduler.add(sequence(1, {}));
  scheduler.add(sequence(2, {.logit_bias = {{7, 1.5F}, {9, -2}}}));
  scheduler.add(sequence(3, {.allowed_token_ids = {6}}));
  StepPlan plan = scheduler.schedule();
  REQUIRE(plan.logit_rows.size() == 5);
  CHECK(plan.num_masks == 2);
  CHECK(plan.masks.empty());
  scheduler.fill_masks(plan);
  REQUIRE(plan.masks.size() == size_t{2} * 128);
  CHECK(plan.logit_rows[0].mask == 0);
  CHECK(plan.logit_rows[1].mask == 0);
  CHECK(plan.logit_rows[2].mask == -1);
  CHECK(plan.logit_rows[3].mask == -1);
  CHECK(plan.biases == std::vector<TokenBias>{{7, 1.5F}, {9, -2}});
  CHECK(plan.logit_rows[3].bias_end - plan.logit_rows[3].bias_begin == 2);
  CHECK(plan.logit_rows[4].bias_end == plan.logit_rows[4].bias_begin);
  CHECK(plan.mask_of(plan.logit_rows[1])[0] == (1U << 5 | 1U << 6));
  CHECK(plan.mask_of(plan.logit_rows[4])[0] == 1U << 6);
  scheduler.postprocess(plan, {{.token = 5}, {.token = 6}, {.token = 1}, {.token = 2}, {.token = 6}});
  plan = scheduler.schedule();  // each answer is a sequence of its own now, and has a mask of its own
  scheduler.fill_masks(plan);
  CHECK(plan.num_masks == 3);
}

TEST_CASE("a row that leaves no token to choose is answered with an error that says by what", "[rules]") {
  Scheduler scheduler(options());
  const SamplingParams sampling{.max_tokens = 9, .min_tokens = 2, .allowed_token_ids = {4093}};
  scheduler.add(Sequence({.row = 5, .sampling = sampling}, {1, 2}, nullptr, rules_of(sampling)));
  const StepPlan plan = scheduler.schedule();
  const auto finished = scheduler.postprocess(plan, {{.fault = TokenFault::all_banned}});
  REQUIRE(finished.size() == 1);
  CHECK(finished[0].error ==
        "row 5: no token is left to choose at position 2 by allowed_token_ids, min_tokens");
}
