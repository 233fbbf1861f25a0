#include "comm/exchange_options.h"

#include <bit>
#include <cstddef>

namespace moerun {

bool one_subtree_a_rank(const std::vector<int32_t>& rank_of, int ranks) {
  const auto experts = static_cast<int32_t>(rank_of.size());
  if (!std::has_single_bit(static_cast<unsigned>(ranks))) return false;
  const auto block =
      static_cast<int32_t>(std::bit_ceil(static_cast<unsigned>((experts + ranks - 1) / ranks)));
  for (int32_t expert = 0; expert < experts; ++expert)
    if (rank_of[static_cast<std::size_t>(expert)] != expert / block) return false;
  return true;
}

}  // namespace moerun
