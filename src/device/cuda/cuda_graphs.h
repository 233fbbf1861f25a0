#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <list>
#include <map>

#include "moerun/device.h"

namespace moerun {

/// Records steps that recur as CUDA graphs. A shape runs eagerly the first time (libraries choose their
/// algorithms and load their code then), is recorded the second time, and replayed from then on; the least
/// recently used graph goes when there are too many. Thread contract: the engine thread.
class GraphCache {
 public:
  GraphCache(cudaStream_t stream, size_t capacity) : stream_(stream), capacity_(capacity) {}
  ~GraphCache() { clear(); }
  GraphCache(const GraphCache&) = delete;
  GraphCache& operator=(const GraphCache&) = delete;

  /// The GPU must be done with them.
  void clear();
  void run(const StepShape& shape, const std::function<void()>& body);

  struct Counts {
    int64_t eager = 0, recorded = 0, replayed = 0;
  };
  const Counts& counts() const { return counts_; }

 private:
  struct Entry {
    cudaGraphExec_t graph = nullptr;
    std::list<StepShape>::iterator used;
  };
  cudaGraphExec_t record(const std::function<void()>& body);

  cudaStream_t stream_;
  size_t capacity_;
  std::map<StepShape, Entry> entries_;
  std::list<StepShape> recent_;  ///< most recently used first
  Counts counts_;
};

}  // namespace moerun
