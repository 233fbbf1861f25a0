#include "device/cuda/cuda_graphs.h"

#include "device/cuda/cuda_check.h"

namespace moerun {

void GraphCache::clear() {
  for (const auto& [shape, entry] : entries_)
    if (entry.graph) cudaGraphExecDestroy(entry.graph);
  entries_.clear();
  recent_.clear();
}

cudaGraphExec_t GraphCache::record(const std::function<void()>& body) {
  CUDA_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
  cudaGraph_t graph = nullptr;
  try {
    body();
  } catch (...) {
    cudaStreamEndCapture(stream_, &graph);  // leave the stream usable for the message's way out
    if (graph) cudaGraphDestroy(graph);
    throw;
  }
  CUDA_CHECK(cudaStreamEndCapture(stream_, &graph));
  cudaGraphExec_t executable = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  CUDA_CHECK(status);
  return executable;
}

void GraphCache::run(const StepShape& shape, const std::function<void()>& body) {
  const auto [found, first_time] = entries_.try_emplace(shape);
  Entry& entry = found->second;
  if (first_time) {
    recent_.push_front(shape);
    entry.used = recent_.begin();
    ++counts_.eager;
    body();
    if (entries_.size() > capacity_) {
      const auto oldest = entries_.find(recent_.back());
      if (oldest->second.graph) CUDA_CHECK(cudaGraphExecDestroy(oldest->second.graph));
      entries_.erase(oldest);
      recent_.pop_back();
    }
    return;
  }
  recent_.splice(recent_.begin(), recent_, entry.used);
  if (!entry.graph) {
    entry.graph = record(body);
    ++counts_.recorded;
  }
  CUDA_CHECK(cudaGraphLaunch(entry.graph, stream_));
  ++counts_.replayed;
}

}  // namespace moerun
