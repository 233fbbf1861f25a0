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

/// Carries tokens to the ranks that hold their experts and the partial sums back. A layer calls dispatch,
/// computes, then combine. Zero tokens are fine and take part. Thread contract: the engine thread alone.
/// Throws Error.
class ExpertExchange {
 public:
  virtual ~ExpertExchange() = default;
  /// Says how many tokens each rank of the engine brings to this step's exchanges (the step's agreement
  /// already knows). [ep ranks]
  virtual void begin_step(const std::vector<int32_t>& tokens_of_rank) = 0;
  /// Sends each token once to every rank that holds one of its experts. Returns what arrived here; valid
  /// until combine.
  virtual Routed dispatch(const Routed& tokens) = 0;
  /// Where expert_ffn puts the partial sums of what arrived (rows and, when several a token,
  /// partial_offsets). `out` is what combine will be given: where nothing moves, they are the sums
  /// themselves.
  virtual Tensor partials(Tensor out) = 0;
  virtual Ints partial_offsets() = 0;
  /// Returns the partial sums and adds them along the expert tree into out [tokens, hidden].
  virtual void combine(Tensor out) = 0;
  /// Whether it asks the layer's ExpertSlots which copy of an expert computes a token; without that, tokens
  /// go to their experts' homes.
  virtual bool takes_copies() const { return false; }
  virtual std::string name() const = 0;
  /// Whether nothing moves: dispatch and combine do nothing, and expert_ffn's sums are the layer's.
  virtual bool local() const { return false; }
  /// Whether expert_ffn leaves a row for each (token, choice) pair in partials() instead of sums: the token's
  /// own rank then adds them.
  virtual bool wants_pairs() const { return false; }
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
