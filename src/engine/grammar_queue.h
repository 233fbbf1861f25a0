#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <variant>
#include <vector>

#include "engine/sequence.h"
#include "grammar/grammar.h"

namespace moerun {

/// Sequences that wait for the grammars of their answers, which a thread of its own compiles one after the
/// other: steps go on meanwhile. Thread contract: the leader's engine thread.
class GrammarQueue {
 public:
  /// `vocabulary.tokenizer` must outlive it. Nothing is done before the first sequence comes.
  explicit GrammarQueue(GrammarCompiler::Vocabulary vocabulary);
  ~GrammarQueue();
  GrammarQueue(const GrammarQueue&) = delete;
  GrammarQueue& operator=(const GrammarQueue&) = delete;

  void add(Sequence sequence);
  /// Those whose grammars are there, in the order in which they came; a row's error where there is none.
  std::vector<std::variant<Sequence, RowResult>> take_ready();
  /// Forgets all.
  void clear() { waiting_.clear(); }
  int64_t num_answers() const;

 private:
  using Grammar = std::shared_ptr<const CompiledGrammar>;
  struct Waiting {
    Sequence sequence;
    std::future<Grammar> grammar;
  };
  void compile_all();

  GrammarCompiler::Vocabulary vocabulary_;
  std::deque<Waiting> waiting_;
  std::mutex mutex_;  // of what follows
  std::condition_variable changed_;
  struct Asked {
    AnswerForm form;
    std::string calls;  ///< held calls instead of a form; empty: none
    std::promise<Grammar> promise;
  };
  std::deque<Asked> asked_;
  bool ends_ = false;
  std::thread thread_;
};

}  // namespace moerun
