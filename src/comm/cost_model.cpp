#include "comm/cost_model.h"

#include <algorithm>

namespace moerun {

double expected_ranks(const ExchangeLoad& load) {
  double missed = 1;  // the chance that none of a token's experts lives on one given rank
  const auto experts = static_cast<double>(load.num_experts);
  const double here = experts / load.ranks;
  for (int64_t i = 0; i < load.num_experts_per_tok; ++i)
    missed *= std::max(0.0, experts - here - static_cast<double>(i)) / (experts - static_cast<double>(i));
  return load.ranks * (1 - missed);
}

ExchangeCost cost_once_a_rank(const ExchangeLoad& load) {
  const double others = expected_ranks(load) * (load.ranks - 1) / load.ranks;
  return {.dispatch_bytes = load.tokens * others * (load.row_bytes() + load.routing_bytes()),
          .combine_bytes = load.tokens * others * load.row_bytes()};
}

ExchangeCost cost_all_gather(const ExchangeLoad& load) {
  const double others = load.ranks - 1;
  return {.dispatch_bytes = load.tokens * others * (load.row_bytes() + load.routing_bytes()),
          .combine_bytes = load.tokens * others * load.row_bytes()};
}

}  // namespace moerun
