#pragma once
#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <unordered_map>
#include <vector>

#include "engine/plan_writer.h"
#include "moerun/plan.h"

namespace moerun {

/// Scores of the tokens with which prompts go on where they leave one that is being computed. Its step has
/// the logits, so that a prompt that takes over all that both have in common need not compute the last of it
/// again for them. Thread contract: the leader's engine thread.
class BranchScores {
 public:
  /// The prompt of a sequence waits for that of `of`, and goes on with `token` at `position`. Sequences are
  /// told by their keys.
  void want(uint64_t waiting, uint64_t of, int32_t position, int32_t token) {
    wanted_[of][{position, token}].push_back(waiting);
  }
  /// The prompt of a sequence is not computed any further, or wholly.
  void forget(uint64_t of) { wanted_.erase(of); }
  /// What a step can score that computes positions [begin, end) of the sequence, which is at `place` in it.
  void schedule(uint64_t of, size_t place, int32_t begin, int32_t end) {
    const auto at = wanted_.find(of);
    if (at == wanted_.end()) return;
    const auto first = at->second.lower_bound({begin + 1, INT32_MIN});
    const auto last = at->second.lower_bound({end + 1, INT32_MIN});
    for (auto one = first; one != last; ++one) {
      branches_.push_back({.of = place, .position = one->first.first, .token = one->first.second});
      waiting_.push_back(std::move(one->second));
    }
    at->second.erase(first, last);
  }
  const std::vector<Branch>& branches() const { return branches_; }
  /// What became of the step's branches, in their order.
  void take(const TokenResult* results) {
    for (size_t i = 0; i < branches_.size(); ++i)
      if (results[i].fault == TokenFault::none)
        for (const uint64_t one : waiting_[i]) scores_[one] = {branches_[i].position, score_of(results[i])};
    branches_.clear(), waiting_.clear();
  }
  /// The score of the sequence's token at `position`, if it is known.
  std::optional<PromptScore> find(uint64_t sequence, int32_t position) const {
    const auto at = scores_.find(sequence);
    if (at == scores_.end() || at->second.first != position) return std::nullopt;
    return at->second.second;
  }
  /// The sequence needs no score any more.
  void drop(uint64_t sequence) { scores_.erase(sequence); }
  void clear() { *this = {}; }

 private:
  using Place = std::pair<int32_t, int32_t>;  // position, token
  std::unordered_map<uint64_t, std::map<Place, std::vector<uint64_t>>> wanted_;
  std::vector<Branch> branches_;  // of the step at hand
  std::vector<std::vector<uint64_t>> waiting_;
  std::unordered_map<uint64_t, std::pair<int32_t, PromptScore>> scores_;
};

}  // namespace moerun
