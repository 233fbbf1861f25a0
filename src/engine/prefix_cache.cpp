#include "engine/prefix_cache.h"

#include <algorithm>
#include <functional>

#include "base/common_prefix.h"

namespace moerun {

namespace {

using Tokens = std::span<const int32_t>;

int32_t common(Tokens a, Tokens b) { return static_cast<int32_t>(common_prefix(a, b)); }

/// What a kept prompt takes of memory, in tokens with a score: one of the most likely takes as much as both.
size_t weight_of(Tokens prompt, const PromptScores& scores) {
  return prompt.size() * static_cast<size_t>(1 + scores.num_top());
}

/// Of `alike` tokens that a prompt has in common with another, those that it need not compute: a token whose
/// logits it wants stays its own. `scores` are what the other has or will have.
int32_t usable(const Sequence& sequence, int32_t alike, const PromptScores& scores) {
  const int32_t unscored = sequence.first_unscored();
  if (unscored < sequence.prompt_length()) {
    // The last token in common scores the first one that is not.
    if (scores.serve(sequence.scores(), unscored)) return alike < unscored ? alike : alike - 1;
    return std::min(alike, unscored - 1);
  }
  // The first token of an answer is drawn from the logits of the prompt's last.
  return sequence.num_output_tokens() > 0 ? alike : std::min(alike, sequence.prompt_length() - 1);
}

}  // namespace

bool PrefixCache::Less::operator()(Tokens a, Tokens b) const {
  const size_t alike = common_prefix(a, b);
  return alike < a.size() && alike < b.size() ? a[alike] < b[alike] : a.size() < b.size();
}

bool PrefixCache::Less::operator()(const Sequence* a, const Sequence* b) const {
  const Tokens x = a->prompt(), y = b->prompt();
  const size_t alike = common_prefix(x, y);
  if (alike < x.size() && alike < y.size()) return x[alike] < y[alike];
  return x.size() != y.size() ? x.size() < y.size() : std::less<>()(a, b);
}

PrefixCache::Match PrefixCache::find(const Sequence& sequence) {
  const Tokens prompt = sequence.prompt();
  const int32_t unscored = sequence.first_unscored();
  Match match;
  auto kept = kept_.end();
  const auto look_kept = [&](auto at) {
    const int32_t alike = common(prompt, at->first), tokens = usable(sequence, alike, at->second.scores);
    if (tokens <= match.shared) return;
    match = {.shared = tokens, .alike = alike, .kv = &at->second.kv, .scores = &at->second.scores};
    kept = at;
  };
  const auto next = kept_.lower_bound(prompt);
  if (next != kept_.end()) look_kept(next);
  if (next != kept_.begin()) look_kept(std::prev(next));

  const auto look_begun = [&](const Sequence& other) {
    const PromptScores& scores = other.scores();
    const int32_t alike = common(prompt, other.prompt()), to_come = usable(sequence, alike, scores);
    if (to_come > match.to_come) {
      match.to_come = to_come, match.to_come_of = other.key();
      const bool scores_it =
          alike >= unscored && alike < sequence.prompt_length() && scores.serve(sequence.scores(), unscored);
      match.branch = scores_it ? alike : 0;
    }
    int32_t there = std::min(to_come, other.num_computed);
    // Scores may be fewer than keys where the other had its keys taken away once.
    if (there >= unscored) there = std::min(there, std::max(scores.end(), unscored) - 1);
    if (there <= match.shared || fresh_.contains(&other)) return;
    match.shared = there;
    match.alike = std::min(alike, other.num_computed);
    match.kv = &other.kv;
    match.scores = &scores;
    kept = kept_.end();
  };
  const auto after = begun_.lower_bound(&sequence);
  if (after != begun_.end()) look_begun(**after);
  if (after != begun_.begin()) look_begun(**std::prev(after));

  if (kept != kept_.end()) uses_.splice(uses_.begin(), uses_, kept->second.use);
  return match;
}

void PrefixCache::begin(const Sequence& sequence) {
  begun_.insert(&sequence);
  begun_keys_.insert(sequence.key());
  fresh_.insert(&sequence);
}

void PrefixCache::forget(const Sequence& sequence) {
  begun_.erase(&sequence);
  begun_keys_.erase(sequence.key());
}

void PrefixCache::computed(const Sequence& sequence) {
  forget(sequence);
  const Tokens prompt = sequence.prompt();
  const auto there = kept_.find(prompt);
  if (there != kept_.end()) {
    uses_.splice(uses_.begin(), uses_, there->second.use);
    // Scores that serve more prompts take the place of others.
    PromptScores& scores = there->second.scores;
    if (sequence.scores().asked() && (!scores.asked() || sequence.scores().serve(scores, scores.begin()))) {
      scores = sequence.scores();
      kept_tokens_ -= there->second.weight;
      kept_tokens_ += there->second.weight = weight_of(prompt, scores);
    }
    return;
  }
  const size_t weight = weight_of(prompt, sequence.scores());
  while (!kept_.empty() && (kept_.size() >= kMostKept || kept_tokens_ + weight > most_kept_tokens())) evict();
  kept_tokens_ += weight;
  const auto [at, fresh] = kept_.try_emplace({prompt.begin(), prompt.end()});
  uses_.push_front(at->first);
  at->second.use = uses_.begin();
  at->second.scores = sequence.scores();
  at->second.weight = weight;
  cache_.keep(sequence.kv, sequence.prompt_length(), at->second.kv);
}

bool PrefixCache::evict(size_t but) {
  if (kept_.size() <= but) return false;
  const auto at = kept_.find(uses_.back());
  uses_.pop_back();
  kept_tokens_ -= at->second.weight;
  cache_.let_go(at->second.kv);
  kept_.erase(at);
  return true;
}

}  // namespace moerun
