#pragma once
#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "device/cuda/cuda_copy.h"
#include "device/cuda/cuda_fp8.h"
#include "device/cuda/cuda_linear.h"
#include "device/cuda/cuda_plan.h"
#include "device/cuda/cuda_sampler.h"
#include "device/cuda/cuda_states.h"
#include "device/cuda/cuda_swap.h"
#include "kernels/cuda/attention_decode.h"
#include "kernels/cuda/moe_permute.h"
#include "moerun/device.h"

namespace moerun {

/// Row numbers on their way from the host to the GPU. Two pinned buffers take turns. Thread contract: the
/// engine thread.
class IndexUpload {
 public:
  IndexUpload(Arena& arena, cudaStream_t stream, int64_t room);
  /// In device memory until the next upload. Throws Error when there are more than the room.
  const int32_t* upload(std::span<const int32_t> indices);

 private:
  cudaStream_t stream_;
  int64_t room_;
  int32_t* device_;
  std::array<PinnedBuffer, 2> host_;
  std::array<Event, 2> sent_;
  size_t next_ = 0;
};

/// What a CUDA device's operations need beyond their arguments, for the largest step that will come.
struct CudaWorkspace {
  CudaWorkspace(Arena& arena, cudaStream_t stream, const StreamWait& wait, DType dtype,
                const StepLimits& limits);

  StepLimits limits;
  PlanUpload plans;
  IndexUpload indices;
  LinearProducts products;
  std::unique_ptr<Fp8Products> fp8;  // where weights are in e4m3
  Sampler sampler;
  SwapSpace swap_space;
  RowCopies row_copies;
  SlotCopies states;
  DecodeWorkspace decode;

  // linear_tree: the parts' products [parts, rows, out_features], as many rows at a time as fit.
  void* parts = nullptr;
  size_t parts_bytes = 0;

  // expert_ffn: as many tokens at a time as there is room for.
  int64_t expert_tokens = 0;
  MoePlan experts;
  void *expert_h = nullptr, *expert_y = nullptr;  // [expert_tokens · k, intermediate], [.., hidden]
};

}  // namespace moerun
