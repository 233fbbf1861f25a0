#pragma once
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <string>
#include <thread>

#include "io/ledger.h"
#include "io/segment.h"

namespace moerun {

/// Writes segments and names them in the ledger, on a thread of its own, so that a disk that takes its time
/// does not hold up those who wait for prompts. It calls neither MPI, HDF5 nor CUDA.
///
/// The first failure is kept: nothing is sealed after it, and every later call throws it again. Thread
/// contract: the members are for one thread, the coordinator's.
class SealThread {
 public:
  struct Run {
    const Directory* directory = nullptr;  ///< of the run; outlives this
    std::string run_id;
    uint64_t next_number = 1;  ///< of the next segment
  };

  explicit SealThread(const Run& run);
  /// Writes what was submitted, then ends; a failure then is lost, so call wait() before.
  ~SealThread();
  SealThread(const SealThread&) = delete;
  SealThread& operator=(const SealThread&) = delete;

  /// Takes a segment to be sealed. Waits while kMostWaiting others wait: memory does not grow when the disk
  /// is slower than the answers come.
  void submit(SegmentBuilder&& segment);
  /// Returns once everything submitted is sealed.
  void wait();
  /// Throws the kept failure, if there is one.
  void check();

  /// What was sealed since the start; call it after wait().
  const std::vector<SegmentRecord>& sealed() const { return sealed_; }

 private:
  static constexpr size_t kMostWaiting = 2;

  void run();

  const Directory& directory_;
  const std::string run_id_;
  uint64_t next_number_;
  Ledger ledger_;
  std::vector<SegmentRecord> sealed_;

  std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  std::deque<SegmentBuilder> waiting_;
  bool writing_ = false, ending_ = false;
  std::exception_ptr failure_;
  std::thread thread_;  // last: it uses all above
};

}  // namespace moerun
