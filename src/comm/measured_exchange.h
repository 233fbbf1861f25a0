#pragma once
#include <string>
#include <vector>

#include "comm/cost_model.h"

namespace moerun {

/// Dispatch + combine of one layer at one number of tokens, as exchange_bench timed it.
struct MeasuredExchange {
  std::string exchange;      ///< mpi, nccl or p2p
  std::string device, date;  ///< of the ranks; when
  ExchangeLoad load;
  bool shares_gpu = false;  ///< ranks did: the time says nothing about links
  bool all_gather = false;  ///< every token went to every rank
  double us = 0;            ///< the slowest rank's

  /// What the cost model says of it.
  ExchangeCost cost() const { return all_gather ? cost_all_gather(load) : cost_once_a_rank(load); }
};

/// The rows of a file that `exchange_bench --json` or jobs/eight-gpus.sh wrote, in its order. Throws
/// BadInput, naming file and line, when it cannot be read or a row is none.
std::vector<MeasuredExchange> read_measured_exchange(const std::string& path);

/// Those of `measured` with the ranks and shapes of `load`, whatever their tokens, and of this exchange
/// (empty: of each), by exchange and tokens. Throws BadInput, saying what was measured, when there are none.
std::vector<MeasuredExchange> measured_for(const std::vector<MeasuredExchange>& measured,
                                           const ExchangeLoad& load, const std::string& exchange);

}  // namespace moerun
