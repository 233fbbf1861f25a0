#pragma once
#include <array>
#include <cstdint>

#include "device/cuda/cuda_memory.h"
#include "moerun/device.h"

namespace moerun {

/// A step's plan on its way to the GPU: packed into pinned memory and copied at once, to the same addresses
/// every step, so that graphs can hold them. For the same reason the longest context counts in steps of
/// DevicePlan::kContextStep and alone decides the width of the block table: decode steps of equal size look
/// equal until the next step is reached. Two pinned buffers take turns: the next plan may be packed while the
/// last one is still crossing the bus. Thread contract: the engine thread.
class PlanUpload {
 public:
  PlanUpload(Arena& arena, cudaStream_t stream, const StepLimits& limits);
  DevicePlan upload(const StepPlan& plan);

 private:
  struct Room {
    int64_t tokens, seqs, blocks, block_size;
    int64_t ints() const {
      return 3 * padded(tokens) + padded(seqs + 1) + 2 * padded(seqs) + padded(saves()) +
             padded(seqs * blocks);
    }
    /// A step saves at most a state for each that there is, which are a quarter more than sequences
    /// (plan_rank); three numbers each, and an end.
    int64_t saves() const { return 3 * 2 * seqs + 3; }
    static int64_t padded(int64_t n) { return (n + 63) / 64 * 64; }
  };
  Room room_;
  cudaStream_t stream_;
  int32_t* device_;
  std::array<PinnedBuffer, 2> host_;
  std::array<Event, 2> sent_;
  size_t next_ = 0;
};

}  // namespace moerun
