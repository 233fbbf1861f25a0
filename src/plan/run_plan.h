#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "layout/topology.h"
#include "model/memory_estimate.h"
#include "model/shard.h"
#include "moerun/device.h"
#include "moerun/job.h"
#include "moerun/model_config.h"
#include "moerun/routed_shape.h"
#include "plan/sequence_limit.h"

namespace moerun {

// What runs, decided once and purely: `moerun check`, the start and the ranks read the same plan, and none of
// them computes a part of it again. Nothing here knows MPI or CUDA.

/// What is known of the machines before a rank has touched its device.
struct Machine {
  int num_ranks = 1;
  std::vector<std::string> hosts;  ///< [num_ranks] where they run; empty: not known yet
  std::string command;             ///< that was typed to start them, for faults; empty: nothing was started
};

/// A job with every `auto` decided that the machine does not decide at run time (`memory.num_blocks`,
/// `parallel.all_to_all`).
struct RunPlan {
  Job job;
  ModelConfig config;
  Layout layout;
  DType dtype = DType::float32;  ///< of weights and activations
  SequenceLimit sequences;
  uint64_t num_rows = 0;  ///< of the input, once it is known

  /// Of keys and values.
  DType key_value_dtype() const { return job.memory.kv_cache_dtype.value_or(dtype); }
  /// What is kept of routers' choices.
  RoutedShape routed() const { return job.output.routed_experts ? routed_shape(config) : RoutedShape(); }
};

/// What a rank asks of its exchange and its collective.
struct ExchangeRequest {
  Job::Parallel::AllToAll all_to_all = Job::Parallel::AllToAll::automatic;
  int64_t part_tokens = 0;   ///< that a rank may bring to the experts in one step
  int64_t group_tokens = 0;  ///< of a data-parallel group in one step, padded to tp
  int64_t hidden_size = 0, num_experts_per_tok = 0;
};

/// A rank's memory, as far as it is known before its device is.
struct MemoryPlan {
  WeightBytes weights;
  int64_t block_bytes = 0;        ///< of a block of keys and values in all layers
  int64_t blocks_a_sequence = 0;  ///< of max_model_len: fewer are no use
  int64_t most_blocks = 0;        ///< more are never used, or are what the job asks for
  bool asked = false;             ///< memory.num_blocks says how many, and all of them must have room
  int64_t num_host_blocks = 0;    ///< of preempted sequences in the host's memory
  int64_t state_bytes = 0;        ///< of a slot in all layers with gated delta nets; 0: there are none
  int64_t num_states = 0;         ///< slots: one for each sequence that runs, and some for shared beginnings
  int64_t num_host_states = 0;    ///< of preempted sequences

  /// What states take, whose room is set aside first.
  uint64_t all_states() const { return static_cast<uint64_t>(num_states * state_bytes); }
  /// Blocks that have room in so many bytes.
  int64_t blocks_in(uint64_t bytes) const;
};

struct RankPlan {
  Coordinates at;
  ExpertMap experts;  ///< of the engine
  ModelShard shard;
  StepLimits limits;
  ExchangeRequest exchange;
  MemoryPlan memory;

  bool is_leader() const { return at.tensor == 0; }
};

/// The element type that a device computes in: what the job asks for, or the device's default for a
/// checkpoint. Throws BadInput when the device cannot.
DType resolve_dtype(Job::DeviceKind kind, std::optional<DType> asked, DType of_checkpoint);

/// What `auto` means for a job whose device is decided. Again changes nothing.
void decide_autos(Job& job, const ModelConfig& config);

/// The plan of a job whose device is decided. Throws BadInput with everything that keeps it from running on
/// such ranks and devices: layout, dtype, what the kernels refuse, an exchange that cannot carry it, memory
/// that cannot do.
RunPlan plan_run(Job job, ModelConfig config, const Machine& machine);

/// A rank's part of it. `rank` < layout.world_size().
RankPlan plan_rank(const RunPlan& run, int rank);

/// In what the numbers are kept, for people: "weights float8_e4m3fn and bfloat16, activations bfloat16, keys
/// and values bfloat16".
std::string formats_text(const RunPlan& run);

/// What is wrong with room for `num_blocks` blocks of keys and values a group; empty when nothing is.
std::string too_few_blocks(const RunPlan& run, const MemoryPlan& memory, int64_t num_blocks);

}  // namespace moerun
