#pragma once
#include <cstdint>
#include <list>
#include <map>
#include <set>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "engine/kv_cache.h"
#include "engine/sequence.h"

namespace moerun {

/// Of a model with gated delta nets.
struct KeptStateRules {
  StateSlots* slots = nullptr;
  int32_t chunk = 0;     ///< positions of a chunk; 0: the model has no such layers
  size_t most_kept = 0;  ///< states
};

/// Prompts whose keys and values are in the cache or on their way there, so that one that begins alike takes
/// them over. A computed prompt is kept when its sequence ends, until its room is needed; what was used
/// longest ago goes first.
///
/// With gated delta nets a beginning is of use where a state was kept behind it (`KeptStateRules`): at a
/// chunk's border that a waiting prompt wants, and for a row's several answers behind the whole prompt. So
/// what is kept are beginnings with their state, not prompts. Thread contract: the leader's engine thread.
class PrefixCache {
 public:
  explicit PrefixCache(KvCache& cache, const KeptStateRules& states = {}) : cache_(cache), states_(states) {}
  ~PrefixCache() { clear(); }
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  /// What a prompt may take over.
  struct Match {
    int32_t shared = 0;   ///< tokens whose keys and values are there and need not be computed
    int32_t alike = 0;    ///< tokens in common whose keys and values are there
    int32_t to_come = 0;  ///< that will be, once a prompt that is being computed is:
    /// Position of the first token that is not in common with it, where its step can score that; else 0.
    int32_t branch = 0;
    uint64_t to_come_of = 0;               ///< Sequence::key
    const KvBlocks* kv = nullptr;          ///< where those lie that are there
    const PromptScores* scores = nullptr;  ///< of those that a prompt that is scored still lacks
    int32_t state = -1;                    ///< slot of the state behind `shared` tokens
  };
  /// The longest beginning that a prompt has in common with others, but for what it must compute itself: a
  /// token that logits come from. What a prompt is scored for it takes from one that has those scores.
  Match find(const Sequence& sequence);

  /// What has begun from now on is computed by a later step than the one that is made now.
  void begin_step() { fresh_.clear(); }
  /// The sequence computes its prompt from now on; it stays where it is until `computed` or `forget`.
  void begin(const Sequence& sequence);
  /// Whether the prompt of the sequence with this key is being computed.
  bool computing(uint64_t key) const { return begun_keys_.contains(key); }
  /// A prompt waits for the state at a border of the one with this key. False where too many are waited for.
  bool want_state(uint64_t of, int32_t border);
  /// The states to keep of a step that computes positions [begin, end) of a prompt, [position, slot]…: what
  /// is wanted, and what the row's further answers begin with. Makes room for them as far as it can.
  std::vector<int32_t> save_states(const Sequence& sequence, int32_t end);
  /// That step was done, and the sequence has its scores.
  void saved_states(const Sequence& sequence);
  /// The sequence's prompt is computed, and is kept.
  void computed(const Sequence& sequence);
  /// The sequence is not computed any further.
  void forget(const Sequence& sequence);
  /// Lets go of the prompt that was used longest ago; false when there are no more than `but` of them.
  bool evict(size_t but = 0);
  void clear() {
    while (evict()) {
    }
  }

 private:
  struct Less {
    using is_transparent = void;
    bool operator()(std::span<const int32_t> a, std::span<const int32_t> b) const;
    bool operator()(const Sequence* a, const Sequence* b) const;
  };
  struct Kept {
    KvBlocks kv;
    PromptScores scores;
    size_t weight = 0;                    // in tokens
    int32_t state = -1, next_token = -1;  // with delta nets: the slot, and the token behind the beginning
    std::list<std::span<const int32_t>>::iterator use;
  };
  static constexpr size_t kMostKept = 4096;
  /// Prompts that begin alike take little of the cache, and each its own memory here.
  size_t most_kept_tokens() const {
    constexpr int64_t kTimesTheCache = 8;
    return static_cast<size_t>(kTimesTheCache * cache_.num_blocks() * cache_.block_size());
  }

  Match find_state(const Sequence& sequence);
  /// Whether the state behind this beginning of the sequence's prompt is one that it would come to itself.
  bool fits(const Sequence& sequence, std::span<const int32_t> beginning, const Kept& kept) const;
  /// Keeps the first `tokens` tokens of a prompt.
  Kept& keep(const Sequence& sequence, int32_t tokens);
  /// What is just being saved of the sequence is not kept after all.
  void drop_saves(const Sequence& sequence);

  /// In the order of their tokens, in which those that begin alike are neighbours.
  std::map<std::vector<int32_t>, Kept, Less> kept_;
  std::set<const Sequence*, Less> begun_;
  std::unordered_set<uint64_t> begun_keys_;
  std::unordered_set<const Sequence*> fresh_;  // begun in the step that is being made: nothing is there yet
  size_t kept_tokens_ = 0;                     // by what they weigh
  KvCache& cache_;
  KeptStateRules states_;
  std::unordered_map<uint64_t, std::set<int32_t>> wanted_;  // borders, by Sequence::key
  size_t num_wanted_ = 0, num_saves_ = 0;
  std::unordered_map<uint64_t, std::vector<int32_t>> saves_;  // of the step at hand: [position, slot]…
  std::list<std::span<const int32_t>> uses_;                  ///< of `kept_`, the last first
};

}  // namespace moerun
