#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/limits.h"
#include "kernels/cuda/stopwatch.h"
#include "moerun/dtype.h"
#include "moerun/expert_turn.h"

namespace moerun {

using limits::kMaxP2pRanks;

/// What one rank's window holds, as every rank sees it through its peer pointers. Rows are addressed by
/// [source rank][the source's token] with as many rows a source as the step's largest share, which the step's
/// agreement knows: nothing is counted or sorted before a token can be pushed. A token that has no expert at
/// the destination has ids of −1 there and its row is unwritten. All offsets are bytes from the window's
/// start.
struct P2pLayout {
  int32_t ranks = 1;       ///< of the engine
  int32_t max_tokens = 0;  ///< a source rank may bring in one step
  int32_t hidden = 0;
  int32_t k = 0;  ///< num_experts_per_tok
  int32_t element_bytes = 2;
  /// What comes back for a token: false: one sum from each rank that holds experts of it, which takes an
  /// expert map that gives each rank one aligned subtree; true: a row from each of its k experts, for any
  /// map.
  bool pairs = false;

  static constexpr size_t kAlignment = 256;
  static constexpr size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }
  constexpr size_t rows() const { return static_cast<size_t>(ranks) * static_cast<size_t>(max_tokens); }
  constexpr int32_t rows_back() const { return pairs ? k : ranks; }  ///< a token, at most
  constexpr size_t row_bytes() const {
    return static_cast<size_t>(hidden) * static_cast<size_t>(element_bytes);
  }

  // [ranks] uint64 epochs: `dispatched[s]` when source s has pushed its tokens here, `combined[d]` when rank
  // d has pushed its partial sums here.
  constexpr size_t dispatched() const { return 0; }
  constexpr size_t combined() const { return aligned(sizeof(uint64_t) * kMaxP2pRanks); }
  // [source][max_tokens][hidden] tokens, then their global expert ids and weights [source][max_tokens][k].
  constexpr size_t tokens() const { return combined() + aligned(sizeof(uint64_t) * kMaxP2pRanks); }
  constexpr size_t ids() const { return tokens() + aligned(rows() * row_bytes()); }
  constexpr size_t weights() const { return ids() + aligned(rows() * static_cast<size_t>(k) * 4); }
  // Of this rank's own tokens: [expert rank][step tokens][hidden] sums, or [max_tokens][k][hidden] with
  // `pairs`.
  constexpr size_t partials() const { return weights() + aligned(rows() * static_cast<size_t>(k) * 4); }
  constexpr size_t bytes() const {
    return partials() +
           aligned(static_cast<size_t>(rows_back()) * static_cast<size_t>(max_tokens) * row_bytes());
  }
};

/// Where a wait gave up: written to host-visible memory before the kernel traps.
struct P2pFault {
  int32_t phase = 0;  ///< 0: none; 1: dispatch; 2: combine
  int32_t peer = -1;  ///< the rank whose flag did not come
};

/// One rank's side of the exchange. Everything is device memory and stays put, so that a graph can hold it.
struct P2pArgs {
  P2pLayout layout;
  int32_t rank = 0;
  char* const* windows =
      nullptr;  ///< [ranks] device array of peer pointers; windows[rank] is this rank's own
  const int32_t* rank_of = nullptr;  ///< [num_experts] which rank computes an expert
  uint64_t* epoch = nullptr;         ///< this rank's own counter; all ranks run the same number of exchanges
  uint32_t* blocks_done = nullptr;   ///< [2] zeroed once
  P2pFault* fault = nullptr;         ///< host-visible
  Stopwatch* clock = nullptr;        ///< optional: time between the kernels' starts and ends, waits included
  uint64_t deadline_ns = 0;          ///< a wait that lasts longer traps
  DType dtype = DType::bfloat16;
};

/// This rank's tokens of one layer.
struct P2pTokens {
  const void* x = nullptr;         ///< [num_tokens, hidden]
  const int32_t* ids = nullptr;    ///< [num_tokens, k] global expert ids
  const float* weights = nullptr;  ///< [num_tokens, k]
  /// Optional [num_experts, kExpertTurns], instead of P2pArgs::rank_of: which rank computes an expert on
  /// which turn (moerun/expert_turn.h). Takes layout.pairs.
  const int32_t* rank_of_turn = nullptr;
  int32_t num_tokens = 0, step_tokens = 0;
};

/// Pushes each token once to every rank that computes one of its experts, with its ids and weights (ids of
/// experts that are computed elsewhere become −1 there; rows from num_tokens to step_tokens too), raises this
/// rank's flag at every peer, and waits for every peer's. Then this rank's window holds tokens [ranks ·
/// step_tokens, hidden], ids and weights.
void launch_p2p_dispatch(const P2pArgs& args, const P2pTokens& tokens, cudaStream_t stream);

/// Pushes partial [ranks · step_tokens, hidden] (this rank's sums for the tokens that arrived, where it has
/// an expert of theirs; with layout.pairs [ranks · step_tokens · k, hidden], its experts' rows) back to their
/// sources, raises the flags, and waits. Then this rank's window holds what the token's sum is made of.
void launch_p2p_return(const P2pArgs& args, const void* partial, int32_t step_tokens, cudaStream_t stream);

/// Adds what came back for this rank's own tokens, with their ids [num_tokens, k], into out [num_tokens,
/// hidden]: a binary tree over ranks, which is the upper part of the tree over expert ids when each rank
/// holds one aligned subtree, or with layout.pairs the whole tree over expert ids. `own_window`: this rank's.
/// `every_slot`: [num_experts] zeros, for layout.pairs.
struct P2pSumArgs {
  const P2pArgs* exchange = nullptr;
  const char* own_window = nullptr;
  const int32_t* every_slot = nullptr;
  const int32_t* ids = nullptr;
  void* out = nullptr;
  int32_t num_tokens = 0, step_tokens = 0;
};
void launch_p2p_sum(const P2pSumArgs& args, cudaStream_t stream);

}  // namespace moerun
