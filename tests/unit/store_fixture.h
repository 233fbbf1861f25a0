#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "io/durable_file.h"
#include "io/result_store.h"
#include "temporary_directory.h"

namespace moerun {

/// An answer that depends on its row alone, of a kind that goes round: plain, with log-probabilities, an
/// error.
inline RowResult answer_to(uint64_t row) {
  RowResult result = {.row = row, .id = "row-\xc3\xbc-" + std::to_string(row)};
  if (row % 3 == 2) {
    result.id = std::to_string(row);
    result.id_kind = IdKind::integer;
    result.model = "org/model";
  }
  result.prompt_length = static_cast<int32_t>(row % 7 + 1);
  if (row % 11 == 10) {
    result.error = "a prompt of 9 tokens does not fit";
    return result;
  }
  result.finish_reason = row % 2 ? FinishReason::stop : FinishReason::length;
  result.text = "answer " + std::to_string(row) + " \xe2\x82\xac \"quoted\"\n";
  result.num_top_logprobs = 2;
  for (uint64_t i = 0; i < row % 5; ++i) {
    const auto token = static_cast<int32_t>(row * 10 + i);
    result.token_ids.push_back(token);
    result.logprobs.push_back(-0.1f / static_cast<float>(token + 1));
    result.top_logprobs.emplace_back(token, result.logprobs.back());
    result.top_logprobs.emplace_back(token + 1, -1e-7f * static_cast<float>(i));
  }
  result.prompt_logprobs.push_back(std::numeric_limits<float>::quiet_NaN());
  for (int32_t i = 1; i < result.prompt_length; ++i)
    result.prompt_logprobs.push_back(-static_cast<float>(i) / 3);
  return result;
}

/// The same, where a third of the rows has further answers and greedy choices.
inline RowResult several_answers_to(uint64_t row) {
  RowResult result = answer_to(row);
  if (row % 3 != 1 || !result.error.empty()) return result;
  for (uint64_t i = 0; i < row % 4; ++i) {
    const RowResult other = answer_to(row + i);
    result.more_answers.push_back({.token_ids = other.token_ids,
                                   .text = other.text,
                                   .finish_reason = FinishReason::stop,
                                   .logprobs = other.logprobs,
                                   .top_logprobs = other.top_logprobs});
  }
  for (size_t i = 0; i < result.prompt_logprobs.size(); ++i) result.prompt_is_greedy.push_back(i % 2);
  result.num_prompt_top_logprobs = static_cast<int32_t>(row % 4);
  for (size_t i = 0; i < result.prompt_logprobs.size(); ++i)
    for (int32_t k = 0; k < result.num_prompt_top_logprobs; ++k)
      result.prompt_top_logprobs.emplace_back(
          i == 0 ? -1 : static_cast<int32_t>(i) + k,
          i == 0 ? std::numeric_limits<float>::quiet_NaN() : -0.25F * static_cast<float>(k));
  if (row % 4 != 0) result.scored_tokens.assign(result.prompt_logprobs.size(), static_cast<int32_t>(row));
  result.prompt_truncated = static_cast<int32_t>(row % 2) * 5;
  if (row % 4 == 1) result.echo = "prompt " + std::to_string(row);
  if (row % 4 == 2) result.echo = "";
  if (row % 4 == 3)
    result.chat = {.known = true,
                   .has_reasoning = true,
                   .reasoning = {1, 4},
                   .content = {4, 9},
                   .calls = {5, 9},
                   .reasoning_tokens = 2,
                   .tool_calls = R"([{"name": "f", "arguments": "{}"}])"};
  if (!result.more_answers.empty() && !result.more_answers.back().text.empty())
    result.more_answers.back().chat = result.chat;
  return result;
}

/// What rows of `routed_answers_to` bring: two layers of two ids, so many that they take two bytes.
inline RoutedShape routed_of_answers() {
  return {.layers = {1, 3}, .experts_per_token = 2, .num_experts = 256};
}

/// several_answers_to, with experts of the tokens.
inline RowResult routed_answers_to(uint64_t row) {
  RowResult result = several_answers_to(row);
  if (!result.error.empty()) return result;
  uint8_t next = static_cast<uint8_t>(row);
  const auto fill = [&](std::vector<uint8_t>& routed, size_t tokens) {
    routed.resize(tokens * routed_of_answers().token_bytes());
    for (uint8_t& byte : routed) byte = next++;
  };
  fill(result.prompt_routed, static_cast<size_t>(result.prompt_length));
  fill(result.routed, result.token_ids.size());
  for (Answer& answer : result.more_answers) fill(answer.routed, answer.token_ids.size());
  return result;
}

/// A job in a directory of its own, as the store sees it.
struct StoreJob {
  TemporaryDirectory directory;
  Job job;
  Fingerprint fingerprint = {{"model", "abc"}, {"sampling.seed", "0"}};
  uint64_t num_rows = 40;
  bool openai = false;
  bool several = false;  // rows have several answers
  bool routed = false;   // and experts of their tokens

  StoreJob() {
    job.output.path = directory / "out.h5";
    job.output.jsonl = directory / "out.jsonl";
    job.model.path = "models/tiny";
  }
  OpenedStore open(bool fresh = false,
                   const StoreLimits& limits = {.seal_bytes = 600, .seal_seconds = 1e9}) const {
    return open_result_store(job, fingerprint,
                             {.job_yaml = "model: x",
                              .program_version = "1",
                              .routed = routed ? routed_of_answers() : RoutedShape(),
                              .seed = 7},
                             num_rows, openai, fresh, limits);
  }
  RowResult answer(uint64_t row) const {
    return routed ? routed_answers_to(row) : several ? several_answers_to(row) : answer_to(row);
  }
  std::string run() const { return job.output.path + ".run"; }
  std::string jsonl() const { return read_file(job.output.jsonl); }

  /// What a process of the job does: opens, answers what is open in an order that `stride` (prime to
  /// num_rows) decides, finishes. Returns how many rows it answered.
  uint64_t go(uint64_t stride = 1, bool fresh = false) const {
    OpenedStore opened = open(fresh);
    if (opened.already_finished()) return 0;
    uint64_t count = 0;
    for (uint64_t i = 0; i < num_rows; ++i) {
      const uint64_t row = i * stride % num_rows;
      if (opened.store->answered(row)) continue;
      opened.store->append(answer(row));
      ++count;
    }
    opened.store->finish();
    return count;
  }
  /// Answers the rows [begin, end) and seals them, then ends without finishing.
  void answer_and_seal(uint64_t begin, uint64_t end) const {
    OpenedStore opened = open();
    for (uint64_t row = begin; row < end; ++row) opened.store->append(answer(row));
    opened.store->seal();
  }
};

/// Equal in every bit, NaN included.
inline bool same_answer(const RowResult& a, const RowResult& b) {
  const auto bits = [](const std::vector<float>& values) {
    return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
  };
  return a.row == b.row && a.id == b.id && a.id_kind == b.id_kind && a.endpoint == b.endpoint &&
         a.model == b.model && a.prompt_length == b.prompt_length &&
         a.prompt_truncated == b.prompt_truncated && a.token_ids == b.token_ids && a.text == b.text &&
         a.finish_reason == b.finish_reason && a.error == b.error && bits(a.logprobs) == bits(b.logprobs) &&
         a.num_top_logprobs == b.num_top_logprobs && a.top_logprobs == b.top_logprobs &&
         bits(a.prompt_logprobs) == bits(b.prompt_logprobs) && a.prompt_is_greedy == b.prompt_is_greedy &&
         a.num_prompt_top_logprobs == b.num_prompt_top_logprobs &&
         std::equal(a.prompt_top_logprobs.begin(), a.prompt_top_logprobs.end(), b.prompt_top_logprobs.begin(),
                    b.prompt_top_logprobs.end(),
                    [](const auto& x, const auto& y) {
                      return x.first == y.first && (x.second == y.second || x.first == -1);
                    }) &&
         a.scored_tokens == b.scored_tokens && a.more_answers == b.more_answers && a.chat == b.chat &&
         a.echo == b.echo && a.prompt_routed == b.prompt_routed && a.routed == b.routed;
}

}  // namespace moerun
