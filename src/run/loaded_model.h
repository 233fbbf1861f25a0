#pragma once
#include <functional>
#include <memory>
#include <string>

#include "comm/backends.h"
#include "model/model.h"
#include "model/weight_source.h"
#include "run/rank_model.h"
#include "run/redundant_experts.h"

namespace moerun {

/// A rank's share of the weights on its device, with the exchange between ranks.
class LoadedModel : public RankModel {
 public:
  /// Collective over world. Throws Error, and BadInput before weights load.
  explicit LoadedModel(const RankParts& parts);

  StepRunner& runner() override;
  int64_t blocks_with_room() const override;
  void allocate_cache(int64_t num_blocks) override;
  std::string fault() const override { return backends_.exchange->fault(); }
  double seconds_beside_steps() const override;
  ExchangeSeconds exchange_seconds() const override {
    return {backends_.exchange->seconds(), backends_.tp->seconds()};
  }
  void report(RankReport& out) const override;

 private:
  void make_exchange();
  void check_room() const;
  void load();
  void make_redundant_experts();
  /// Lends `use` the source of the weights while it runs.
  void with_weight_source(const std::function<void(const WeightSource&)>& use) const;

  const RankParts parts_;
  std::unique_ptr<Device> device_;
  Backends backends_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<RedundantExperts> redundant_experts_;  // null without
};

}  // namespace moerun
