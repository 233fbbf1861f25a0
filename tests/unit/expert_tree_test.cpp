#include <algorithm>
#include <random>

#include "moerun/expert_tree.h"
#include "tests/catch.h"

using namespace moerun;

namespace {

std::vector<ExpertSpan> spans_of(const std::vector<int32_t>& ids, const std::vector<int32_t>& rank_of) {
  std::vector<ExpertSpan> spans;
  cut_into_spans(ids, rank_of, spans);
  return spans;
}

// The definition, worked on the complete tree: node [begin, begin + 2^level).
void reference(const std::vector<int32_t>& ids, const std::vector<int32_t>& rank_of, int32_t begin, int level,
               std::vector<std::pair<int32_t, int32_t>>& spans) {
  const int32_t end = begin + (1 << level);
  int32_t first = 0;
  while (first < static_cast<int32_t>(ids.size()) && ids[static_cast<size_t>(first)] < begin) ++first;
  int32_t last = first;
  bool one_rank = true;
  for (; last < static_cast<int32_t>(ids.size()) && ids[static_cast<size_t>(last)] < end; ++last) {
    one_rank = one_rank && rank_of[static_cast<size_t>(last)] == rank_of[static_cast<size_t>(first)];
  }
  if (first == last) return;
  if (one_rank) {
    spans.emplace_back(first, last);
    return;
  }
  reference(ids, rank_of, begin, level - 1, spans);
  reference(ids, rank_of, begin + (1 << (level - 1)), level - 1, spans);
}

}  // namespace

TEST_CASE("ids meet at the height of their lowest common ancestor", "[expert_tree]") {
  CHECK(meeting_level(0, 1) == 1);
  CHECK(meeting_level(1, 2) == 2);
  CHECK(meeting_level(3, 4) == 3);
  CHECK(meeting_level(5, 5) == 0);
}

TEST_CASE("spans are the largest subtrees of one rank", "[expert_tree]") {
  CHECK(spans_of({}, {}).empty());
  CHECK(spans_of({1, 5, 7}, {0, 0, 0}).size() == 1);
  // Expert 1 between 0 and 2 lives elsewhere: 0 meets 1 before it meets 2, so 0 and 2 cannot be added here.
  CHECK(spans_of({0, 1, 2}, {0, 1, 0}).size() == 3);
  CHECK(spans_of({0, 1, 2, 3}, {0, 1, 0, 0}).size() == 3);

  std::mt19937 random(7);
  for (int trial = 0; trial < 2000; ++trial) {
    std::vector<int32_t> all(64);
    for (int i = 0; i < 64; ++i) all[static_cast<size_t>(i)] = i;
    std::shuffle(all.begin(), all.end(), random);
    std::vector<int32_t> ids(all.begin(), all.begin() + 1 + random() % 12);
    std::sort(ids.begin(), ids.end());
    std::vector<int32_t> rank_of(ids.size());
    const int ranks = 1 + static_cast<int>(random() % 4);
    const bool contiguous = random() % 2;
    for (size_t i = 0; i < ids.size(); ++i) {
      rank_of[i] = contiguous ? ids[i] * ranks / 64 : static_cast<int32_t>(random() % ranks);
    }
    std::vector<std::pair<int32_t, int32_t>> expected;
    reference(ids, rank_of, 0, 6, expected);
    const auto spans = spans_of(ids, rank_of);
    REQUIRE(spans.size() == expected.size());
    for (size_t i = 0; i < spans.size(); ++i) {
      CHECK(spans[i].first == expected[i].first);
      CHECK(spans[i].last == expected[i].second);
    }
  }
}
