#include "engine/grammar_queue.h"

#include <algorithm>
#include <utility>

#include "moerun/error.h"

namespace moerun {

GrammarQueue::GrammarQueue(GrammarCompiler::Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {}

GrammarQueue::~GrammarQueue() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
    asked_.clear();
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void GrammarQueue::add(Sequence sequence) {
  if (!thread_.joinable()) thread_ = std::thread([this] { compile_all(); });
  std::promise<Grammar> promise;
  std::future<Grammar> grammar = promise.get_future();
  {
    const std::lock_guard lock(mutex_);
    asked_.push_back({sequence.sampling().form, are_held_calls(sequence.tools()) ? sequence.tools() : "",
                      std::move(promise)});
  }
  changed_.notify_all();
  waiting_.push_back({std::move(sequence), std::move(grammar)});
}

std::vector<std::variant<Sequence, RowResult>> GrammarQueue::take_ready() {
  std::vector<std::variant<Sequence, RowResult>> ready;
  // They are compiled in the order in which they came.
  for (; !waiting_.empty(); waiting_.pop_front()) {
    Waiting& one = waiting_.front();
    if (one.grammar.wait_for(std::chrono::seconds(0)) != std::future_status::ready) break;
    try {
      one.sequence.set_grammar(one.grammar.get());
      ready.emplace_back(std::move(one.sequence));
    } catch (const BadInput& fault) {
      RowResult failed = one.sequence.asked();
      failed.error = fault.what();
      ready.emplace_back(std::move(failed));
    }
  }
  return ready;
}

int64_t GrammarQueue::num_answers() const {
  int64_t count = 0;
  for (const Waiting& one : waiting_) count += one.sequence.num_answers();
  return count;
}

void GrammarQueue::compile_all() {
  constexpr unsigned kMostThreads = 4;  // ranks of a node may all compile
  std::optional<GrammarCompiler> compiler;
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return ends_ || !asked_.empty(); });
    if (ends_) return;
    Asked asked = std::move(asked_.front());
    asked_.pop_front();
    lock.unlock();
    try {
      if (!compiler)
        compiler.emplace(vocabulary_, static_cast<int>(std::clamp(std::thread::hardware_concurrency() / 4, 1U,
                                                                  kMostThreads)));
      asked.promise.set_value(asked.calls.empty() ? compiler->compile(asked.form)
                                                  : compiler->compile_calls(asked.calls));
    } catch (...) {
      asked.promise.set_exception(std::current_exception());
    }
    lock.lock();
  }
}

}  // namespace moerun
