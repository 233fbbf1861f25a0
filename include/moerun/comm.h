#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "moerun/device.h"

namespace moerun {

/// Exchange of activations among the tensor-parallel ranks, ordered on the device's stream. Every rank calls
/// the same operations in the same order with the same shapes. Thread contract: the engine thread alone.
/// Throws Error.
class Collective {
 public:
  virtual ~Collective() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// Whether the operations only enqueue on the device's stream, so that a CUDA graph can record them.
  virtual bool capturable() const { return false; }
  /// out [size·rows] = every rank's in [rows], in rank order.
  virtual void all_gather(Tensor in, Tensor out) = 0;
  /// out [rows] = sum over ranks of in [size·rows], this rank's part, as a fixed binary tree over rank order,
  /// each node rounded to dtype.
  virtual void reduce_scatter(Tensor in, Tensor out) = 0;
  /// out block r = block `rank()` of rank r's `in`; in and out [size·rows].
  virtual void all_to_all(Tensor in, Tensor out) = 0;
  /// Seconds that this rank has spent here so far, its waits for other ranks included; −1: not measured. May
  /// wait for the device.
  virtual double seconds() const { return -1; }
  /// Throws Error when a peer is known to be gone. Does not wait.
  virtual void check() const {}
};

/// What a dispatch brought to this rank's experts, and where their sums go. Valid until combine.
struct Dispatched {
  Routed tokens;
  /// Where expert_ffn puts the sums: a row a token; with `partial_offsets`, which has the first row of each
  /// token, several; with `pairs` a row for each (token, choice) pair, not summed: the token's own rank does
  /// that.
  Tensor partials;
  Ints partial_offsets;
  bool pairs = false;
  bool local = false;  ///< nothing moves: `partials` are the layer's own sums, and combine does nothing
};

/// Carries tokens to the ranks that hold their experts and the partial sums back. A layer calls dispatch,
/// computes, then combine. Zero tokens are fine and take part. Thread contract: the engine thread alone.
/// Throws Error.
class ExpertExchange {
 public:
  virtual ~ExpertExchange() = default;
  /// Says how many tokens each rank of the engine brings to this step's exchanges (the step's agreement
  /// already knows). [ep ranks]
  virtual void begin_step(const std::vector<int32_t>& tokens_of_rank) = 0;
  /// Sends each token once to every rank that holds one of its experts. `sums` [tokens, hidden] is what
  /// combine will be given.
  virtual Dispatched dispatch(const Routed& tokens, Tensor sums) = 0;
  /// Returns the partial sums and adds them along the expert tree into `sums`.
  virtual void combine(Tensor sums) = 0;
  virtual std::string name() const = 0;
  /// Seconds that this rank has spent in dispatch and combine so far, its waits for other ranks included; −1:
  /// not measured. May wait for the device.
  virtual double seconds() const { return -1; }
  /// After a device fault: whether it was a wait of this exchange that gave up, and for whom ("" when not).
  virtual std::string fault() const { return {}; }
  /// Throws Error when a peer is known to be gone. Does not wait.
  virtual void check() const {}
  /// Whether dispatch and combine only enqueue on the device's stream, so that a CUDA graph can record them.
  virtual bool capturable() const { return false; }
};

}  // namespace moerun
