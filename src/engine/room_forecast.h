#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/answer_lengths.h"
#include "engine/kv_cache.h"
#include "engine/length_forecast.h"
#include "engine/sequence.h"

namespace moerun {

/// Whether a sequence that begins now will have room for its keys and values until it ends, and all that run
/// beside it too. A row says how long its answer will be where nothing but max_tokens can end it; else the
/// answers that ended tell. Thread contract: the leader's engine thread.
class RoomForecast {
 public:
  RoomForecast(const KvCache& cache, int64_t max_model_len) : cache_(cache), max_model_len_(max_model_len) {}

  /// Whether max_tokens alone ends such an answer.
  static bool of_known_length(const SamplingParams& sampling);
  /// An answer ended.
  void end(const Sequence& sequence);
  /// What runs is another from now on.
  void forget() { forecast_.reset(); }
  bool begun() const { return forecast_.has_value(); }
  /// These run.
  void begin(std::span<const Sequence* const> running);
  /// Whether there is room for one more, of whose prompt `shared` tokens need none; then it counts as
  /// running.
  bool admit(const Sequence& next, int32_t shared);

 private:
  void expect(const Sequence& sequence, int64_t own_tokens, std::vector<ExpectedLength>& out) const;

  const KvCache& cache_;
  int64_t max_model_len_;
  AnswerLengths lengths_;
  std::optional<LengthForecast> forecast_;
  int64_t shared_tokens_ = 0;  // that have room and belong to several of those that run
};

}  // namespace moerun
