#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/coordinator.h"
#include "engine/engine.h"
#include "moerun/device.h"
#include "moerun/job.h"

namespace moerun {

/// A redundant expert of a rank: of a layer's expert, the part of its tokens that this copy was to compute.
struct PlacedCopy {
  int32_t layer = 0, expert = 0;
  double share = 0;
};

/// How a rank's redundant experts were placed (`parallel.redundant_experts`).
struct PlacementReport {
  int64_t placements = 0, loads = 0;    ///< how often; how many experts this rank loaded for it
  int64_t counted_tokens = 0;           ///< the engine's, routed before the first
  std::vector<uint64_t> expert_tokens;  ///< [layers · num_experts] given to this rank's experts until then
  std::vector<PlacedCopy> copies;       ///< of the last
  double seconds = 0;                   ///< of all
};

/// What one rank measured; travels to rank 0 at the end.
struct RankReport {
  int rank = 0, replica = 0, data = 0, tensor = 0;
  std::string host, device, device_uuid, all_to_all, all_to_all_why;
  int64_t pid = 0;
  uint64_t peak_host_bytes = 0;  ///< resident memory of the process at its greatest
  std::vector<MemoryUse> memory;
  std::vector<DeviceProcess> processes;  ///< that NVML sees on this rank's GPU
  std::vector<uint64_t> expert_tokens;   ///< [layers · num_experts] given to this rank's experts
  double load_s = 0;
  /// Within the steps, waits for other ranks included: in dispatch and combine, and in the collectives of the
  /// tensor-parallel ranks. −1: not measured.
  double all_to_all_s = -1, tensor_s = -1;
  EngineStats engine;
  BinnedSums timeline = StepTimeline().sums();  ///< [TimePart] seconds, over the time of the rank's loop
  PlacementReport placement;
};

std::string pack(const RankReport& report);
RankReport unpack_rank_report(const std::string& bytes);

/// What a whole job measured.
struct JobReport {
  const Job* job = nullptr;
  std::string layout, formats, started, ended;  ///< times as ISO 8601
  JobOutcome outcome;
  int64_t num_experts = 0;
  double total_s = 0;
  int exit_code = 0;
  std::vector<RankReport> ranks;

  bool on_gpus() const { return !ranks.empty() && !ranks.front().device_uuid.empty(); }
};

/// A sentence for each process of this job that holds memory of a GPU that is not its rank's; empty when
/// every GPU is held by its rank alone (invariant 3).
std::vector<std::string> foreign_gpu_processes(const JobReport& report);

/// As a JSON text, and as some lines for people.
std::string report_json(const JobReport& report);
std::string report_text(const JobReport& report);

}  // namespace moerun
