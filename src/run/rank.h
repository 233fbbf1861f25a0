#pragma once
#include <memory>
#include <optional>

#include "comm/mpi_env.h"
#include "engine/engine.h"
#include "fault/watchdog.h"
#include "plan/run_plan.h"
#include "report/report.h"
#include "run/rank_model.h"
#include "run/start_up.h"
#include "text/model_texts.h"

namespace moerun {

/// One rank's model and engine. Thread contract: the main thread, which is the only one that calls the
/// device.
class Rank {
 public:
  /// Chooses the device and loads the weights. Collective over world. Throws Error.
  Rank(const MpiEnv& env, const Start& run, const Communicators& comms, Watchdog& watchdog);

  /// Works until the engine has nothing left.
  void run();
  /// What was measured, and who holds the GPU now.
  RankReport report() const;

 private:
  int64_t agreed_blocks() const;
  LeaderParts leader_parts(int64_t num_blocks);

  const MpiEnv& env_;
  const Start& run_;
  const Communicators& comms_;
  Watchdog& watchdog_;
  const RankPlan plan_;
  std::unique_ptr<RankModel> model_;
  std::unique_ptr<StepAgreement> agreement_;
  std::optional<ModelTexts> texts_;  // a leader's
  LeaderParts leader_;
  double load_s_ = 0;
  EngineStats stats_;
  BinnedSums timeline_ = StepTimeline().sums();
};

}  // namespace moerun
