#pragma once
#include <cstdint>
#include <vector>

#include "engine/block_pool.h"

namespace moerun {

/// Where a sequence's state is; -1: nowhere.
struct StateSlot {
  int32_t device = -1;
  int32_t host = -1;  ///< of a preempted sequence
};

/// What moves before a step, in this order: [device slot, host slot]… that leave, and that come back; [from
/// slot, to slot]….
struct StateMoves {
  std::vector<int32_t> swap_out, swap_in, copies;
};

/// The one owner of the slots in which layers with gated delta nets keep what they know of a sequence, on the
/// device and in the host's memory: integers alone. A slot is of one sequence, or of a beginning that is kept
/// for others. Thread contract: the leader's engine thread.
class StateSlots {
 public:
  struct Size {
    int64_t num_slots = 0;  ///< 0: the model has no such layers
    int64_t num_host_slots = 0;
  };
  explicit StateSlots(const Size& size) : slots_(size.num_slots), host_slots_(size.num_host_slots) {}

  bool any() const { return slots_.num_blocks() > 0; }
  int64_t num_free() const { return slots_.num_free(); }

  /// A step's moves are those since this.
  void begin_step() {
    moves_ = {};
    slots_.give_back(copied_);
  }
  const StateMoves& moves() const { return moves_; }

  /// A free slot for what a step will save; there must be one.
  int32_t take() { return slots_.take(); }
  void give_back(int32_t slot) {
    std::vector<int32_t> one{slot};
    slots_.give_back(one);
  }
  /// The sequence's own, where it has none yet: what it had in the host's memory comes back. False, and
  /// nothing changes, when none is free.
  bool hold(StateSlot& state) {
    if (state.device >= 0) return true;
    if (slots_.num_free() == 0) return false;
    state.device = slots_.take();
    if (state.host < 0) return true;
    moves_.swap_in.insert(moves_.swap_in.end(), {state.device, state.host});
    give_back_host(state);
    return true;
  }
  /// Of a sequence that has none: begins as what is kept in `from`. False when none is free.
  bool copy(int32_t from, StateSlot& to) {
    if (!hold(to)) return false;
    slots_.use(from);  // until the step is done, whoever lets go of it meanwhile
    copied_.push_back(from);
    moves_.copies.insert(moves_.copies.end(), {from, to.device});
    return true;
  }
  bool has_host_slot() const { return host_slots_.num_free() > 0; }
  /// To the host's memory, which has a slot.
  void swap_out(StateSlot& state) {
    state.host = host_slots_.take();
    moves_.swap_out.insert(moves_.swap_out.end(), {state.device, state.host});
    give_back(state.device);
    state.device = -1;
  }
  /// Holds nothing any more.
  void release(StateSlot& state) {
    if (state.device >= 0) give_back(state.device);
    state.device = -1;
    give_back_host(state);
  }

 private:
  void give_back_host(StateSlot& state) {
    std::vector<int32_t> host;
    if (state.host >= 0) host.push_back(state.host);
    host_slots_.give_back(host);
    state.host = -1;
  }

  BlockPool slots_, host_slots_;
  StateMoves moves_;
  std::vector<int32_t> copied_;  // what the step's copies read: held until they are done
};

}  // namespace moerun
