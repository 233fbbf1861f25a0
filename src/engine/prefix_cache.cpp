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
  if (states_.chunk > 0) return find_state(sequence);
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
  if (const auto wanted = wanted_.find(sequence.key()); wanted != wanted_.end()) {
    num_wanted_ -= wanted->second.size();
    wanted_.erase(wanted);
  }
}

void PrefixCache::computed(const Sequence& sequence) {
  forget(sequence);
  if (states_.chunk > 0) return;  // states are kept as they are saved
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
  keep(sequence, sequence.prompt_length());
}

PrefixCache::Kept& PrefixCache::keep(const Sequence& sequence, int32_t tokens) {
  const Tokens beginning = sequence.prompt().first(static_cast<size_t>(tokens));
  const size_t weight = weight_of(beginning, sequence.scores());
  while (!kept_.empty() && (kept_.size() >= kMostKept || kept_tokens_ + weight > most_kept_tokens())) evict();
  kept_tokens_ += weight;
  const auto [at, fresh] = kept_.try_emplace({beginning.begin(), beginning.end()});
  uses_.push_front(at->first);
  at->second.use = uses_.begin();
  at->second.scores = sequence.scores();
  at->second.weight = weight;
  cache_.keep(sequence.kv, tokens, at->second.kv);
  return at->second;
}

bool PrefixCache::fits(const Sequence& sequence, Tokens beginning, const Kept& kept) const {
  const auto tokens = static_cast<int32_t>(beginning.size());
  const int32_t length = sequence.prompt_length();
  // Behind a chunk that a prompt's end cuts short is a state that longer prompts do not come to.
  if (tokens % states_.chunk != 0 && (tokens < length || sequence.num_output_tokens() == 0)) return false;
  const bool one_more = tokens < length && kept.next_token == sequence.token(tokens);
  if (usable(sequence, tokens + (one_more ? 1 : 0), kept.scores) < tokens) return false;
  return sequence.first_unscored() > tokens || tokens == length || kept.scores.end() > tokens;
}

PrefixCache::Match PrefixCache::find_state(const Sequence& sequence) {
  Match match;
  // What sorts last among those up to `key` is the longest that it begins with, or says how much of it such
  // a one can have.
  for (Tokens key = sequence.prompt(); !key.empty();) {
    auto at = kept_.upper_bound(key);
    if (at == kept_.begin()) break;
    --at;
    const size_t alike = common_prefix(key, Tokens(at->first));
    if (alike < at->first.size()) {
      key = key.first(alike);
      continue;
    }
    if (fits(sequence, at->first, at->second)) {
      const auto tokens = static_cast<int32_t>(alike);
      match = {.shared = tokens,
               .alike = tokens,
               .kv = &at->second.kv,
               .scores = &at->second.scores,
               .state = at->second.state};
      uses_.splice(uses_.begin(), uses_, at->second.use);
      break;
    }
    key = key.first(alike - 1);
  }
  const auto look_begun = [&](const Sequence& other) {
    const int32_t alike = common(sequence.prompt(), other.prompt());
    const int32_t border = usable(sequence, alike, other.scores()) / states_.chunk * states_.chunk;
    if (border <= match.to_come || border <= other.num_computed) return;  // its state has gone by
    match.to_come = border, match.to_come_of = other.key();
  };
  const auto after = begun_.lower_bound(&sequence);
  if (after != begun_.end()) look_begun(**after);
  if (after != begun_.begin()) look_begun(**std::prev(after));
  return match;
}

bool PrefixCache::want_state(uint64_t of, int32_t border) {
  const auto wanted = wanted_.find(of);
  if (wanted != wanted_.end() && wanted->second.contains(border)) return true;
  if (num_wanted_ >= states_.most_kept) return false;
  wanted_[of].insert(border);
  ++num_wanted_;
  return true;
}

std::vector<int32_t> PrefixCache::save_states(const Sequence& sequence, int32_t end) {
  std::set<int32_t> positions;
  if (const auto wanted = wanted_.find(sequence.key()); wanted != wanted_.end()) {
    const auto first = wanted->second.upper_bound(sequence.num_computed),
               last = wanted->second.upper_bound(end);
    positions.insert(first, last);
    num_wanted_ -= positions.size();
    wanted->second.erase(first, last);
  }
  if (end == sequence.prompt_length() && sequence.num_answers() > 1) positions.insert(end);
  std::vector<int32_t> saves;
  for (const int32_t position : positions) {
    while ((kept_.size() + num_saves_ >= states_.most_kept || states_.slots->num_free() == 0) && evict()) {
    }
    if (kept_.size() + num_saves_ >= states_.most_kept || states_.slots->num_free() == 0) break;
    saves.insert(saves.end(), {position, states_.slots->take()});
    ++num_saves_;
  }
  if (!saves.empty()) saves_[sequence.key()] = saves;
  return saves;
}

void PrefixCache::drop_saves(const Sequence& sequence) {
  const auto saves = saves_.find(sequence.key());
  if (saves == saves_.end()) return;
  for (size_t i = 0; i < saves->second.size(); i += 2) states_.slots->give_back(saves->second[i + 1]);
  num_saves_ -= saves->second.size() / 2;
  saves_.erase(saves);
}

void PrefixCache::saved_states(const Sequence& sequence) {
  if (sequence.failed()) return drop_saves(sequence);
  const auto at = saves_.find(sequence.key());
  if (at == saves_.end()) return;
  const std::vector<int32_t> saves = std::move(at->second);
  saves_.erase(at);
  num_saves_ -= saves.size() / 2;
  for (size_t i = 0; i < saves.size(); i += 2) {
    const int32_t tokens = saves[i], slot = saves[i + 1];
    const Tokens beginning = sequence.prompt().first(static_cast<size_t>(tokens));
    if (kept_.contains(beginning)) {
      states_.slots->give_back(slot);
      continue;
    }
    Kept& kept = keep(sequence, tokens);
    kept.state = slot;
    kept.next_token = tokens < sequence.prompt_length() ? sequence.token(tokens) : -1;
  }
}

bool PrefixCache::evict(size_t but) {
  if (kept_.size() <= but) return false;
  const auto at = kept_.find(uses_.back());
  uses_.pop_back();
  kept_tokens_ -= at->second.weight;
  cache_.let_go(at->second.kv);
  if (at->second.state >= 0) states_.slots->give_back(at->second.state);
  kept_.erase(at);
  return true;
}

}  // namespace moerun
