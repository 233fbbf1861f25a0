#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "comm/mpi_env.h"
#include "engine/step_timeline.h"
#include "fault/watchdog.h"
#include "moerun/step_runner.h"
#include "plan/run_plan.h"
#include "report/report.h"

namespace moerun {

/// What a rank's model is made from. All must outlive it.
struct RankParts {
  const MpiEnv& env;
  const RunPlan& run;
  const RankPlan& plan;
  const Communicators& comms;
  Watchdog& watchdog;
  const std::string& weights_state;  ///< Start::weights_state
};

/// A rank's model with what it runs on: weights on a device with their exchange (LoadedModel), or the model
/// of `device: null`, which has none of these. Thread contract: the main thread.
class RankModel {
 public:
  virtual ~RankModel() = default;

  virtual StepRunner& runner() = 0;
  /// Blocks of keys and values that have room here; not more than can be of use.
  virtual int64_t blocks_with_room() const = 0;
  /// Sets the cache aside, once all ranks have agreed how many blocks each holds.
  virtual void allocate_cache(int64_t num_blocks) = 0;
  /// For whom a step that failed had waited; empty: nobody.
  virtual std::string fault() const { return ""; }
  /// Seconds within steps that were spent on something else.
  virtual double seconds_beside_steps() const { return 0; }
  /// What exchanges took so far. Between steps: it may ask the device.
  virtual ExchangeSeconds exchange_seconds() const { return {}; }
  /// Adds what was measured, and what it ran on.
  virtual void report(RankReport& out) const = 0;
};

/// Chooses the device and loads the weights. Collective over world. Throws Error; BadInput before weights
/// load for what was not known before the device was.
std::unique_ptr<RankModel> make_rank_model(const RankParts& parts);

}  // namespace moerun
