// What the coordinator does for each row of a large input whose rows begin alike: puts them in order, and
// hands them out. Usage: rows_bench ROWS PREFIXES GROUPS DIRECTORY
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "coordinator/row_order.h"

using namespace moerun;
using Clock = std::chrono::steady_clock;

namespace {

constexpr size_t kPrefixTokens = 100;
constexpr int kRowsAtOnce = 320;  // of 256 sequences that run, and a quarter ahead

double seconds_since(Clock::time_point began) {
  return std::chrono::duration<double>(Clock::now() - began).count();
}

/// proc(5)'s VmHWM.
double peak_mib() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    double kib = 0;
    if (word == "VmHWM:" && status >> kib) return kib / 1024;
  }
  return 0;
}

/// Rows in no order: a prefix of 100 tokens, and 4 to 28 of their own.
class Rows {
 public:
  explicit Rows(uint64_t num_prefixes) : prefixes_(num_prefixes) {
    for (std::vector<int32_t>& prefix : prefixes_) prefix = tokens(kPrefixTokens);
  }
  PromptRecord next() {
    PromptRecord record{.row = row_++, .id = fmt::format("row-{}", row_)};
    record.prompt_token_ids = prefixes_[random_() % prefixes_.size()];
    const std::vector<int32_t> own = tokens(4 + random_() % 25);
    record.prompt_token_ids->insert(record.prompt_token_ids->end(), own.begin(), own.end());
    record.sampling.max_tokens = 1;
    return record;
  }

 private:
  std::vector<int32_t> tokens(size_t count) {
    std::vector<int32_t> out(count);
    for (int32_t& token : out) token = static_cast<int32_t>(random_() % 150000);
    return out;
  }

  std::mt19937_64 random_{1};
  uint64_t row_ = 0;
  std::vector<std::vector<int32_t>> prefixes_;
};

/// Groups ask in turn. Returns the rows that were handed out.
uint64_t hand_out(RowOrder& order, size_t num_groups) {
  uint64_t count = 0;
  while (order.rows_left() > 0)
    for (size_t group = 0; group < num_groups; ++group) {
      Handout handout;
      PromptRecord record;
      RowPlace place;
      for (int i = 0; i < kRowsAtOnce && order.next(group, true, record, place); ++i) {
        handout.records.push_back(std::move(record));
        handout.places.push_back(place);
      }
      count += handout.records.size();
      static_cast<void>(pack(handout));
    }
  return count;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    fmt::print(stderr, "usage: rows_bench ROWS PREFIXES GROUPS DIRECTORY\n");
    return 2;
  }
  const uint64_t num_rows = std::strtoull(argv[1], nullptr, 10);
  const size_t num_groups = std::strtoull(argv[3], nullptr, 10);
  Rows rows(std::strtoull(argv[2], nullptr, 10));
  RowOrder order({.directory = argv[4], .num_groups = num_groups});
  double adding = 0;
  for (uint64_t i = 0; i < num_rows; ++i) {
    PromptRecord record = rows.next();
    const auto began = Clock::now();
    order.add(std::move(record));
    adding += seconds_since(began);
  }
  const auto ordering = Clock::now();
  order.finish();
  const double ordered = seconds_since(ordering);
  const auto handing_out = Clock::now();
  const uint64_t count = hand_out(order, num_groups);
  const double handed_out = seconds_since(handing_out);
  const auto a_second = [&](double seconds) { return static_cast<double>(count) / seconds; };
  fmt::print(
      R"({{"rows": {}, "groups": {}, "ordered_rows_per_s": {:.0f}, "handed_out_rows_per_s": {:.0f}, "peak_mib": {:.1f}}})"
      "\n",
      count, num_groups, a_second(adding + ordered), a_second(handed_out), peak_mib());
  return count == num_rows ? 0 : 1;
}
