#pragma once
#include <mpi.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "comm/topology.h"
#include "fault/progress.h"
#include "model/qwen3_moe.h"
#include "moerun/step_runner.h"
#include "report/report.h"

namespace moerun {

/// Runs a model's steps, and once, between two of them, fills the engine's free expert slots with copies of
/// the experts that had most to do until then (`parallel.redundant_experts`). All ranks of the engine do so
/// between the same steps, because all know how many tokens were routed. Thread contract: the engine thread.
class RedundantExperts : public StepRunner {
 public:
  /// The engine's tokens that are routed before copies are placed: with eight experts a token on eight ranks,
  /// a rank's share of what is to come is then known to about 1.5% (1/√(4096·8/8)).
  static constexpr int64_t kCountedTokens = 4096;

  struct Parts {
    Qwen3Moe* model = nullptr;
    const ExpertMap* map = nullptr;
    MPI_Comm ep = MPI_COMM_NULL;
    Progress* progress = nullptr;
    std::function<void(std::span<const ExpertPlace>)> load;  ///< fills slots of this rank
  };
  explicit RedundantExperts(Parts parts);

  void submit(const StepPlan& plan, const std::vector<int32_t>& tokens_of_rank) override;
  StepResult collect() override { return parts_.model->collect(); }

  const PlacementReport& report() const { return report_; }

 private:
  void place();

  Parts parts_;
  int rank_ = 0;
  bool placed_ = false;
  PlacementReport report_;
};

}  // namespace moerun
