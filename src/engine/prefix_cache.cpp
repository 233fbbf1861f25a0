#include "engine/prefix_cache.h"

#include <algorithm>
#include <functional>

namespace moerun {

namespace {

using Tokens = std::span<const int32_t>;

int32_t common(Tokens a, Tokens b) {
  const size_t most = std::min(a.size(), b.size());
  return static_cast<int32_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<ptrdiff_t>(most), b.begin()).first - a.begin());
}

/// Of `alike` tokens that a prompt has in common with another, those that it need not compute: the last one
/// that logits are wanted from stays its own.
int32_t usable(const Sequence& sequence, int32_t alike) {
  const int32_t most =
      sequence.sampling().prompt_logprobs ? alike : std::min(alike + 1, sequence.prompt_length());
  return std::max(most - 1, 0);
}

}  // namespace

bool PrefixCache::Less::operator()(Tokens a, Tokens b) const {
  return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
}

bool PrefixCache::Less::operator()(const Sequence* a, const Sequence* b) const {
  const Tokens x = a->prompt(), y = b->prompt();
  const auto [i, j] = std::mismatch(x.begin(), x.end(), y.begin(), y.end());
  if (i != x.end() && j != y.end()) return *i < *j;
  return x.size() != y.size() ? x.size() < y.size() : std::less<>()(a, b);
}

PrefixCache::Match PrefixCache::find(const Sequence& sequence) {
  const Tokens prompt = sequence.prompt();
  const bool scored = sequence.sampling().prompt_logprobs;
  Match match;
  auto kept = kept_.end();
  const auto look_kept = [&](auto at) {
    if (scored && at->second.logprobs.empty()) return;
    const int32_t alike = common(prompt, at->first), tokens = usable(sequence, alike);
    if (tokens <= match.shared) return;
    match = {.shared = tokens, .alike = alike, .kv = &at->second.kv, .logprobs = at->second.logprobs};
    kept = at;
  };
  const auto next = kept_.lower_bound(prompt);
  if (next != kept_.end()) look_kept(next);
  if (next != kept_.begin()) look_kept(std::prev(next));

  const auto look_begun = [&](const Sequence& other) {
    if (scored && !other.sampling().prompt_logprobs) return;
    const int32_t alike = common(prompt, other.prompt()), to_come = usable(sequence, alike);
    if (to_come > match.to_come) match.to_come = to_come, match.to_come_of = other.row();
    const int32_t there =
        std::min({to_come, other.num_computed, scored ? other.num_scored() - 1 : other.num_computed});
    if (there <= match.shared || fresh_.contains(&other)) return;
    match.shared = there;
    match.alike = std::min(alike, other.num_computed);
    match.kv = &other.kv;
    match.logprobs = other.prompt_logprobs();
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
  begun_rows_.insert(sequence.row());
  fresh_.insert(&sequence);
}

void PrefixCache::forget(const Sequence& sequence) {
  begun_.erase(&sequence);
  begun_rows_.erase(sequence.row());
}

void PrefixCache::computed(const Sequence& sequence) {
  forget(sequence);
  const Tokens prompt = sequence.prompt();
  const bool scored = sequence.sampling().prompt_logprobs;
  const auto there = kept_.find(prompt);
  if (there != kept_.end()) {
    uses_.splice(uses_.begin(), uses_, there->second.use);
    if (scored && there->second.logprobs.empty())
      there->second.logprobs.assign(sequence.prompt_logprobs().begin(), sequence.prompt_logprobs().end());
    return;
  }
  while (!kept_.empty() && (kept_.size() >= kMostKept || kept_tokens_ + prompt.size() > most_kept_tokens()))
    evict();
  kept_tokens_ += prompt.size();
  const auto [at, fresh] = kept_.try_emplace({prompt.begin(), prompt.end()});
  uses_.push_front(at->first);
  at->second.use = uses_.begin();
  if (scored)
    at->second.logprobs.assign(sequence.prompt_logprobs().begin(), sequence.prompt_logprobs().end());
  cache_.keep(sequence.kv, sequence.prompt_length(), at->second.kv);
}

bool PrefixCache::evict(size_t but) {
  if (kept_.size() <= but) return false;
  const auto at = kept_.find(uses_.back());
  uses_.pop_back();
  kept_tokens_ -= at->first.size();
  cache_.let_go(at->second.kv);
  kept_.erase(at);
  return true;
}

}  // namespace moerun
