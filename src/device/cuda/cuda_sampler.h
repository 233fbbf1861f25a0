#pragma once
#include <span>
#include <vector>

#include "device/cuda/cuda_memory.h"
#include "device/cuda/cuda_wait.h"
#include "moerun/device.h"
#include "moerun/plan.h"

namespace moerun {

/// Draws tokens on the GPU: the rows' options and histories go up, the results come back through pinned
/// memory. The one wait of a step. Thread contract: the engine thread.
class Sampler {
 public:
  /// `wait` must outlive it.
  Sampler(Arena& arena, cudaStream_t stream, const StreamWait& wait, const StepLimits& limits);
  std::vector<TokenResult> sample(Tensor logits, std::span<const LogitRow> rows, const StepPlan& plan);

 private:
  /// The bytes of one transfer: rows, then seen, banned and biased ids, then counts, then masks.
  struct Layout {
    int64_t rows = 0, ids = 0, masks = 0, mask_words = 0;
    size_t ids_at() const { return static_cast<size_t>(rows) * sizeof(LogitRow); }
    size_t counts_at() const { return ids_at() + static_cast<size_t>(ids) * 4; }
    size_t masks_at() const { return counts_at() + static_cast<size_t>(ids) * 4; }
    size_t bytes() const { return masks_at() + static_cast<size_t>(masks * mask_words) * 4; }
  };
  /// The ids of one row, put where the launch has them; the row's ranges become those.
  static void put_ids(const StepPlan& plan, int32_t* ids, int32_t* counts, int32_t& at, LogitRow& row);
  /// As many of the first rows as there is room for.
  size_t group(std::span<const LogitRow> rows) const;
  void run(Tensor logits, std::span<const LogitRow> rows, const StepPlan& plan,
           std::vector<TokenResult>& results);

  cudaStream_t stream_;
  const StreamWait& wait_;
  Layout room_;
  char* device_;
  float* saved_;
  void* device_results_;
  PinnedBuffer host_, host_results_;
};

}  // namespace moerun
