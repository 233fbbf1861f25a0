#pragma once
#include <functional>
#include <memory>
#include <optional>

#include "comm/backends.h"
#include "comm/mpi_env.h"
#include "comm/topology.h"
#include "engine/engine.h"
#include "fault/watchdog.h"
#include "model/qwen3_moe.h"
#include "report/report.h"
#include "run/redundant_experts.h"
#include "run/start_up.h"

namespace moerun {

/// One rank's device, model and engine. Thread contract: the main thread, which is the only one that calls
/// the device.
class Rank {
 public:
  /// Chooses the device and loads the weights. Collective over world. Throws Error.
  Rank(const MpiEnv& env, const Start& start, const Communicators& comms, Watchdog& watchdog);

  /// Works until the engine has nothing left.
  void run();
  /// What was measured, and who holds the GPU now.
  RankReport report() const;

 private:
  bool is_leader() const { return at_.tensor == 0; }
  void check_shared_gpus() const;
  ModelShard shard() const;
  /// Blocks of preempted sequences that the host's memory keeps.
  int64_t num_host_blocks(const ModelShard& shard) const;
  StepLimits limits() const;
  void load();
  /// Lends `use` the source of the weights while it runs.
  void with_weight_source(const std::function<void(const WeightSource&)>& use) const;
  int64_t blocks_that_fit() const;
  LeaderParts leader_parts(int64_t num_blocks);

  const MpiEnv& env_;
  const Start& start_;
  const Communicators& comms_;
  Watchdog& watchdog_;
  const Coordinates at_;
  ExpertMap experts_;
  std::unique_ptr<Device> device_;  // null on `device: null`
  Backends backends_;
  std::unique_ptr<Qwen3Moe> model_;                      // null on `device: null`
  std::unique_ptr<RedundantExperts> redundant_experts_;  // null without
  std::unique_ptr<StepRunner> null_model_;
  std::unique_ptr<StepAgreement> agreement_;
  std::optional<Tokenizer> tokenizer_;
  std::optional<ChatTemplate> chat_template_;
  LeaderParts leader_;
  double load_s_ = 0;
  EngineStats stats_;
};

}  // namespace moerun
