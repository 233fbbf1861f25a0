#include "moerun/expert_tree.h"

#include <algorithm>
#include <bit>

namespace moerun {

int32_t split_of_subtree(std::span<const int32_t> ids, int32_t first, int32_t last) {
  // The highest bit in which the smallest and the largest id differ is where their subtree divides.
  const auto lowest = static_cast<uint32_t>(ids[static_cast<size_t>(first)]),
             highest = static_cast<uint32_t>(ids[static_cast<size_t>(last) - 1]);
  const uint32_t bit = std::bit_floor(lowest ^ highest);
  const auto begin = ids.begin() + first, end = ids.begin() + last;
  return static_cast<int32_t>(
      std::find_if(begin, end, [&](int32_t id) { return (static_cast<uint32_t>(id) & bit) != 0; }) -
      ids.begin());
}

namespace {

void cut(std::span<const int32_t> ids, std::span<const int32_t> rank_of, int32_t first, int32_t last,
         std::vector<ExpertSpan>& spans) {
  const auto begin = rank_of.begin() + first, end = rank_of.begin() + last;
  if (std::all_of(begin, end, [&](int32_t rank) { return rank == *begin; })) {
    spans.push_back({first, last});
    return;
  }
  const int32_t middle = split_of_subtree(ids, first, last);
  cut(ids, rank_of, first, middle, spans);
  cut(ids, rank_of, middle, last, spans);
}

}  // namespace

void cut_into_spans(std::span<const int32_t> ids, std::span<const int32_t> rank_of,
                    std::vector<ExpertSpan>& spans) {
  if (!ids.empty()) cut(ids, rank_of, 0, static_cast<int32_t>(ids.size()), spans);
}

}  // namespace moerun
