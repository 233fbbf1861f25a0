#pragma once
#include <cstdint>

namespace moerun {

// The cost model of the expert exchange: bytes and the time that a link takes for them. Pure arithmetic.

/// One layer's exchange as every rank of an engine sees it: all bring the same number of tokens, and the
/// router spreads them evenly over the experts.
struct ExchangeLoad {
  int ranks = 1;      ///< of the engine; each holds num_experts / ranks experts
  double tokens = 0;  ///< that each rank brings
  int64_t hidden_size = 0, element_bytes = 2;
  int64_t num_experts = 0, num_experts_per_tok = 0;

  double row_bytes() const { return static_cast<double>(hidden_size * element_bytes); }
  /// A token's expert ids (int32) and weights (float32).
  double routing_bytes() const { return 8.0 * static_cast<double>(num_experts_per_tok); }
};

/// What a rank sends in one layer; it receives as much.
struct ExchangeCost {
  double dispatch_bytes = 0, combine_bytes = 0;

  double bytes() const { return dispatch_bytes + combine_bytes; }
  /// Seconds at a link of `bytes_per_s` each way, with nothing but the bytes counted.
  double seconds(double bytes_per_s) const { return bytes() / bytes_per_s; }
};

/// Ranks that hold an expert of a token, on average: ranks · (1 − C(E − E/ranks, k) / C(E, k)), where the
/// fraction is the chance that k of E experts, drawn without replacement, leave out one rank's E/ranks.
double expected_ranks(const ExchangeLoad& load);

/// A token travels once to each other rank that holds one of its experts, and a partial sum comes back (mpi,
/// p2p, and nccl by counts).
ExchangeCost cost_once_a_rank(const ExchangeLoad& load);

/// Every token travels to every other rank, and a partial sum comes back from each (nccl by all-gather; also
/// what all-gather + reduce-scatter moves).
ExchangeCost cost_all_gather(const ExchangeLoad& load);

}  // namespace moerun
