#include "model/null_model.h"

#include <chrono>
#include <cmath>
#include <cstring>
#include <thread>

#include "moerun/random.h"

namespace moerun {

namespace {

/// The first token from `id` on, and round the end, that the mask lets be chosen; −1: there is none.
int32_t allowed_from(uint64_t id, const uint32_t* mask, int64_t vocab_size) {
  const auto vocab = static_cast<uint64_t>(vocab_size);
  for (uint64_t step = 0; step < vocab; ++step) {
    const uint64_t at = (id + step) % vocab;
    if (!mask || (mask[at / 32] >> at % 32 & 1) != 0) return static_cast<int32_t>(at);
  }
  return -1;
}

}  // namespace

void NullModel::submit(const StepPlan& plan, const std::vector<int32_t>& tokens_of_rank) {
  static_cast<void>(tokens_of_rank);
  using Clock = std::chrono::steady_clock;
  plan_ = &plan;
  ends_ = Clock::now() +
          std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double, std::milli>(step_ms_));
}

StepResult NullModel::collect() {
  const StepPlan& plan = *plan_;
  const TokenPart part = part_of_step(plan.num_tokens(), tensor_, tensor_rank_);
  const auto uniform = static_cast<float>(-std::log(static_cast<double>(vocab_size_)));
  StepResult out;
  for (size_t i = 0; i < plan.logit_rows.size(); ++i) {
    const LogitRow& row = plan.logit_rows[i];
    if (row.token_index < part.begin || row.token_index >= part.end) continue;
    // The most likely token is what comes before it alone.
    const bool greedy = row.draw.temperature < kGreedyTemperature;
    const DrawKey key =
        greedy ? draw_key(0, static_cast<uint64_t>(plan.tokens[static_cast<size_t>(row.token_index)]),
                          row.position)
               : draw_key(row.draw.seed, row.stream, row.position);
    const uint32_t word = draw_words(key, 0).word[0];
    TokenResult result{.token = row.target, .logprob = uniform};
    if (row.target < 0) {
      result.token = allowed_from(word % static_cast<uint64_t>(vocab_size_), plan.mask_of(row), vocab_size_);
      if (result.token < 0) result.fault = TokenFault::all_banned;
    }
    for (int32_t id = 0; id < row.draw.logprobs; ++id) {
      result.top_tokens.push_back(id);
      result.top_logprobs.push_back(uniform);
    }
    out.rows.push_back(static_cast<int32_t>(i));
    out.results.push_back(std::move(result));
  }
  out.routed = routed(part);
  if (step_ms_ > 0) std::this_thread::sleep_until(ends_);
  return out;
}

std::vector<uint8_t> NullModel::routed(const TokenPart& part) const {
  std::vector<uint8_t> out(static_cast<size_t>(part.count()) * routed_.token_bytes());
  if (out.empty()) return out;
  const auto experts = static_cast<uint32_t>(routed_.num_experts);
  uint8_t* to = out.data();
  for (auto token = static_cast<size_t>(part.begin); token < static_cast<size_t>(part.end); ++token)
    for (const int32_t layer : routed_.layers) {
      const auto first =
          static_cast<uint32_t>(plan_->tokens[token] + plan_->positions[token] * 31 + layer * 7);
      for (uint32_t i = 0; i < static_cast<uint32_t>(routed_.experts_per_token); ++i) {
        const auto id = static_cast<uint16_t>((first + i) % experts);
        std::memcpy(to, &id, routed_.id_bytes());  // little-endian
        to += routed_.id_bytes();
      }
    }
  return out;
}

}  // namespace moerun
