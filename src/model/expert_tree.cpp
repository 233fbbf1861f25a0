#include "moerun/expert_tree.h"

namespace moerun {

namespace {

// A node of the token's tree is a range of its ascending ids; its halves part where the neighbours that meet
// highest stand.
void cut(std::span<const int32_t> ids, std::span<const int32_t> rank_of, int32_t first, int32_t last,
         std::vector<ExpertSpan>& spans) {
  bool one_rank = true;
  int32_t split = first + 1;
  for (int32_t i = first + 1; i < last; ++i) {
    one_rank = one_rank && rank_of[i] == rank_of[first];
    if (meeting_level(ids[i - 1], ids[i]) > meeting_level(ids[split - 1], ids[split])) split = i;
  }
  if (one_rank) {
    spans.push_back({first, last});
    return;
  }
  cut(ids, rank_of, first, split, spans);
  cut(ids, rank_of, split, last, spans);
}

}  // namespace

void cut_into_spans(std::span<const int32_t> ids, std::span<const int32_t> rank_of,
                    std::vector<ExpertSpan>& spans) {
  if (!ids.empty()) cut(ids, rank_of, 0, static_cast<int32_t>(ids.size()), spans);
}

}  // namespace moerun
