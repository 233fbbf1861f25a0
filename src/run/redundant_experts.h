#pragma once
#include <mpi.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "fault/progress.h"
#include "layout/topology.h"
#include "model/model.h"
#include "moerun/step_runner.h"
#include "report/report.h"

namespace moerun {

/// Runs a model's steps, and between some of them fills the engine's free expert slots with copies of experts
/// that had most to do (`parallel.redundant_experts`): first when kFirstTokens were routed, and again
/// whenever as many were routed as before then, by what was counted in between. The first steps of a job are
/// prompts alone and mislead about the rest; later placements become rare by themselves. All ranks of the
/// engine do so between the same steps, because all know how many tokens were routed. Thread contract: the
/// engine thread.
class RedundantExperts : public StepRunner {
 public:
  /// With eight experts a token on eight ranks, a rank's share of the tokens is then known to about 1.5%
  /// (1/√(4096·8/8)).
  static constexpr int64_t kFirstTokens = 4096;

  struct Parts {
    Model* model = nullptr;
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
  int64_t routed_tokens_ = 0;           // by the engine
  int64_t next_tokens_ = kFirstTokens;  // routed when copies are placed next
  std::vector<uint64_t> counted_;  // [layers · num_experts] expert_tokens() when copies were placed last
  std::vector<ExpertPlace> held_;  // what this rank's redundant slots hold
  PlacementReport report_;
};

}  // namespace moerun
