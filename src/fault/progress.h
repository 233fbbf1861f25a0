#pragma once
#include <atomic>
#include <cstdint>
#include <string_view>

namespace moerun {

/// What a rank is doing, as messages about faults call it.
enum class Phase : int32_t { start, load, warm_up, run, drain, merge, end };

constexpr std::string_view name_of(Phase phase) {
  constexpr std::string_view kNames[] = {"start", "load", "warm-up", "run", "drain", "merge", "end"};
  return kNames[static_cast<int32_t>(phase)];
}

/// How far the engine thread of this rank has come. It writes, the watchdog's thread reads.
class Progress {
 public:
  void enter(Phase phase) {
    phase_.store(phase, std::memory_order_relaxed);
    beat();
  }
  /// A step of the engine begins.
  void begin_step(int64_t step) {
    step_.store(step, std::memory_order_relaxed);
    beat();
  }
  /// Something was done: a weight was loaded, a layer's exchange came through.
  void beat() { beats_.fetch_add(1, std::memory_order_relaxed); }
  /// From here on the rank waits for others (so it is not the one that hangs), or no more.
  void set_waiting(bool waiting) {
    waiting_.store(waiting, std::memory_order_relaxed);
    beat();
  }

  Phase phase() const { return phase_.load(std::memory_order_relaxed); }
  int64_t step() const { return step_.load(std::memory_order_relaxed); }
  uint64_t beats() const { return beats_.load(std::memory_order_relaxed); }
  bool waiting() const { return waiting_.load(std::memory_order_relaxed); }

 private:
  std::atomic<Phase> phase_{Phase::start};
  std::atomic<int64_t> step_{0};
  std::atomic<uint64_t> beats_{0};
  std::atomic<bool> waiting_{false};
};

/// Marks that the engine thread waits for other ranks while this lives. `progress` may be null.
class Waiting {
 public:
  explicit Waiting(Progress* progress) : progress_(progress) {
    if (progress_) progress_->set_waiting(true);
  }
  ~Waiting() {
    if (progress_) progress_->set_waiting(false);
  }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

 private:
  Progress* progress_;
};

}  // namespace moerun
