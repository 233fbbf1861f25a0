// What answers that ended, and those that run, tell of the rest: against lengths that are all known.
#include "engine/answer_lengths.h"

#include <algorithm>
#include <random>

#include "tests/catch.h"

using namespace moerun;

namespace {

/// Short answers, and a tenth of long ones.
std::vector<int32_t> drawn_lengths(int count) {
  std::mt19937_64 random(20261130);
  std::vector<int32_t> out(static_cast<size_t>(count));
  for (int32_t& length : out)
    length = static_cast<int32_t>(random() % 10 == 0 ? 2000 + random() % 2000 : 50 + random() % 200);
  return out;
}

}  // namespace

TEST_CASE("answer lengths: few answers tell nothing", "[engine]") {
  AnswerLengths lengths;
  for (int i = 0; i < 31; ++i) lengths.end(10);
  CHECK_FALSE(lengths.due());
  lengths.end(10);
  CHECK(lengths.due());
  lengths.learn({});
  CHECK_FALSE(lengths.due());
}

TEST_CASE("answer lengths: what runs counts too", "[engine]") {
  // All began at once and 300 tokens later only short ones have ended: their mean is 150, that of all 420.
  const std::vector<int32_t> all = drawn_lengths(4000);
  AnswerLengths lengths;
  std::vector<int32_t> running;
  for (const int32_t length : all) {
    if (length <= 300)
      lengths.end(length);
    else
      running.push_back(300);
  }
  lengths.learn(running);
  // Nine of ten end soon; what has outgrown them all will be long.
  const AnswerLengths::Quantiles of_new = lengths.of(0), of_long = lengths.of(300);
  CHECK(of_new[1] < 250);
  CHECK(of_long[0] > 500);
  for (int part = 1; part <= 10; ++part)  // and once they have ended too, how long
    for (const int32_t length : all)
      if (length > 300 && length % 10 == part % 10) lengths.end(length);
  lengths.learn({});
  double expected = 0;
  for (const int32_t length : lengths.of(1000)) expected += length / 4.0;
  CHECK(expected > 2900);
  CHECK(expected < 3100);
}

TEST_CASE("answer lengths: quantiles ascend, and lie beyond what is there", "[engine]") {
  AnswerLengths lengths;
  for (const int32_t length : drawn_lengths(500)) lengths.end(length);
  lengths.learn({});
  for (const int32_t tokens : {0, 1, 31, 100, 249, 1999, 3998, 3999, 4000, 9000}) {
    const AnswerLengths::Quantiles of = lengths.of(tokens);
    CHECK(of.front() > tokens);
    CHECK(std::is_sorted(of.begin(), of.end()));
  }
}
