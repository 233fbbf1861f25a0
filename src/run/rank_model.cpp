#include "run/rank_model.h"

#include "model/null_model.h"
#include "run/loaded_model.h"

namespace moerun {

namespace {

/// `device: null`: draws tokens and keeps nothing.
class NullRankModel : public RankModel {
 public:
  explicit NullRankModel(const RankParts& parts)
      : most_blocks_(parts.plan.memory.most_blocks),
        model_({.vocab_size = parts.run.config.vocab_size,
                .tensor = parts.run.layout.tensor,
                .tensor_rank = parts.plan.at.tensor,
                .step_ms = parts.run.job.null_step_ms,
                .routed = parts.run.routed()}) {}

  StepRunner& runner() override { return model_; }
  int64_t blocks_with_room() const override { return most_blocks_; }
  void allocate_cache(int64_t num_blocks) override { static_cast<void>(num_blocks); }
  void report(RankReport& out) const override {
    out.device = "null";
    out.all_to_all = "none";
    out.all_to_all_why = "device: null has no experts";
  }

 private:
  int64_t most_blocks_;
  NullModel model_;
};

}  // namespace

std::unique_ptr<RankModel> make_rank_model(const RankParts& parts) {
  if (parts.run.job.device == Job::DeviceKind::null) return std::make_unique<NullRankModel>(parts);
  return std::make_unique<LoadedModel>(parts);
}

}  // namespace moerun
