#include "comm/token_lists.h"

#include <numeric>

namespace moerun {

void list_tokens(std::span<const int32_t> ids, int32_t k, std::span<const int32_t> rank_of, int32_t ranks,
                 TokenLists& lists) {
  const size_t n = ids.size() / static_cast<size_t>(k), width = static_cast<size_t>(ranks);
  const auto each = [&](auto&& visit) {  // (token, rank), a token's ranks once
    std::vector<int64_t> last(width, -1);
    for (size_t token = 0; token < n; ++token)
      for (const int32_t id : ids.subspan(token * static_cast<size_t>(k), static_cast<size_t>(k))) {
        const auto rank = static_cast<size_t>(rank_of[static_cast<size_t>(id)]);
        if (last[rank] == static_cast<int64_t>(token)) continue;
        last[rank] = static_cast<int64_t>(token);
        visit(token, rank);
      }
  };
  lists.count.assign(width, 0);
  each([&](size_t, size_t rank) { ++lists.count[rank]; });
  std::vector<int32_t> next(width);
  std::exclusive_scan(lists.count.begin(), lists.count.end(), next.begin(), 0);
  lists.tokens.resize(static_cast<size_t>(next.back()) + static_cast<size_t>(lists.count.back()));
  lists.row_of.assign(width * n, 0);
  each([&](size_t token, size_t rank) {
    const int32_t row = next[rank]++;
    lists.tokens[static_cast<size_t>(row)] = static_cast<int32_t>(token);
    lists.row_of[rank * n + token] = row;
  });
}

}  // namespace moerun
