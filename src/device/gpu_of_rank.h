#pragma once
#include <fmt/format.h>

#include "moerun/error.h"

namespace moerun {

/// The GPU of a rank that sees `num_visible` of them: its only one (a launcher may show each rank its own),
/// else the one of its local rank. Where ranks may share GPUs they are dealt out in turn. Throws BadInput
/// when there is none.
inline int gpu_of_rank(int local_rank, int num_visible, bool shared) {
  if (num_visible == 1) return 0;
  if (num_visible > 0 && shared) return local_rank % num_visible;
  if (local_rank >= num_visible)
    throw BadInput(
        fmt::format("rank {} of this node has no GPU of its own: {} are visible", local_rank, num_visible));
  return local_rank;
}

}  // namespace moerun
