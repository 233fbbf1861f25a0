#pragma once
#include <chrono>
#include <cstdint>
#include <string>

#include "coordinator/coordinator.h"

namespace moerun {

/// "1:02:03", "2:03" or "0:03".
std::string clock_text(double seconds);
/// 1234567 → "1,234,567".
std::string with_commas(uint64_t number);
/// "520 MiB"; "unknown" for −1, NVML's silence in some containers.
std::string mib_text(int64_t bytes);

/// One line about a job's progress.
std::string progress_text(const JobProgress& progress);

/// Shows progress on stderr: one line that is rewritten on a terminal; in a batch log plain lines, first
/// close together, then one every half minute. Thread contract: one thread.
class ProgressLine {
 public:
  explicit ProgressLine(bool terminal);
  void update(const JobProgress& progress);
  /// Ends the line that is being rewritten.
  void finish(const JobProgress& progress);

 private:
  using Clock = std::chrono::steady_clock;
  void print(const JobProgress& progress);

  bool terminal_;
  Clock::time_point began_ = Clock::now(), due_ = began_;
  size_t width_ = 0;
  bool shown_ = false;
};

}  // namespace moerun
