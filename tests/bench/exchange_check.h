#pragma once
#include <random>
#include <string>
#include <vector>

#include "layout/topology.h"
#include "moerun/comm.h"

namespace moerun {

/// Tokens with their routing in host memory.
struct ExchangeTokens {
  int64_t n = 0, k = 0, hidden = 0;
  std::vector<char> x;         ///< [n, hidden] of the device's dtype
  std::vector<int32_t> ids;    ///< [n, k]
  std::vector<float> weights;  ///< [n, k]
};

/// `n` tokens, each routed to `k` of the experts at random, all as likely.
ExchangeTokens make_exchange_tokens(std::mt19937_64& random, int64_t n, int64_t hidden, int64_t num_experts,
                                    int64_t k, DType dtype);

/// Plays the experts of a rank in plain loops on the host, and compares what an exchange made of them with
/// the sums that follow from the tokens alone (moerun/expert_tree.h), bit by bit. An expert's output is
/// x·(1 + id/16), rounded: other for each expert, and such that a sum in another order shows.
class ExchangeCheck {
 public:
  ExchangeCheck(const ExpertMap& experts, int rank, Device& device)
      : experts_(experts), rank_(rank), device_(device), dtype_(device.dtype()) {}

  /// How many of the tokens have an expert at each rank. [ranks]
  std::vector<int32_t> tokens_to_rank(const ExchangeTokens& tokens) const;

  /// Fills it with NaN: what nobody writes shows.
  void poison(Tensor tensor) const;

  /// The local experts' part of what arrived, into the exchange's partial sums; NaN where nothing is wanted.
  /// Returns the rows that have an expert here.
  int64_t compute(const Dispatched& here) const;

  /// "" when `out` holds the tokens' sums, else what differs.
  std::string compare(const ExchangeTokens& tokens, Tensor out) const;

 private:
  /// A token's row and its choices by ascending expert id.
  struct Token {
    const char* x;
    std::vector<int32_t> ids, ranks, places;  ///< places: which of the token's choices it is
    std::vector<float> weights;
  };
  Token sorted(const char* x, const int32_t* ids, const float* weights, int64_t k) const;
  float rounded(float value) const;
  /// The sum of choices [first, last) of a token along the tree over expert ids. [hidden]
  std::vector<float> tree(const Token& token, int32_t first, int32_t last, int64_t hidden) const;
  void store(const std::vector<float>& row, char* out) const;

  const ExpertMap& experts_;
  int rank_;
  Device& device_;
  DType dtype_;
};

}  // namespace moerun
