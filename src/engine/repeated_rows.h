#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/sequence.h"
#include "moerun/record.h"

namespace moerun {

/// Rows with the same ids and the same sampling, whose answers are equal by definition (job/answer_key.h):
/// the first is computed, and its answer is the others' too.
///
/// Rows come in an order in which equal prompts meet, so what is remembered are the rows of the prompt that
/// came last: those that are being computed, and answers of those that ended meanwhile, as far as memory
/// allows. Thread contract: the leader's engine thread.
class RepeatedRows {
 public:
  enum class Turn {
    computes,  ///< it is the first of its kind
    waits,     ///< its answer will come from finish() of the first
    answered,  ///< `result` is its answer
  };
  /// What becomes of the row that comes next.
  Turn add(const Sequence& sequence, RowResult& result);
  /// An answer that was computed: those of the rows that wait for it.
  std::vector<RowResult> finish(const RowResult& result);

  static constexpr size_t kMostKinds = 4096;  ///< of one prompt
  size_t num_remembered() const { return of_prompt_.size(); }
  /// Whether rows that wait hold so much memory that no more should come.
  bool full() const { return waiting_bytes_ > kMostBytes; }

 private:
  static constexpr size_t kMostBytes = size_t{32} << 20;
  /// Rows of one kind.
  struct Kind {
    std::string key;
    uint64_t row = 0;                // that computes, or has computed
    bool of_last_prompt = true;      // more may come
    std::vector<RowResult> waiting;  // but for their answers
    std::optional<RowResult> answer;
  };

  void forget_prompt();

  std::vector<int32_t> prompt_;                                       // of the row that came last
  std::unordered_map<std::string, std::shared_ptr<Kind>> of_prompt_;  // its rows, by answer_key
  std::unordered_map<uint64_t, std::shared_ptr<Kind>> computing_;     // by row, where others wait or may come
  size_t waiting_bytes_ = 0, answer_bytes_ = 0;
};

}  // namespace moerun
