// The order in which rows that begin alike meet, and how groups share it out.
#include "coordinator/row_order.h"

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "store_fixture.h"
#include "tests/catch.h"

using namespace moerun;

namespace {

PromptRecord ids_of(uint64_t row, std::vector<int32_t> ids) {
  PromptRecord record{.row = row};
  record.prompt_token_ids = std::move(ids);
  record.sampling.max_tokens = 0;
  return record;
}

/// Rows as each group got them; groups ask in turn for a few.
std::vector<std::vector<PromptRecord>> share_out(RowOrder& order, size_t groups, size_t at_once = 3) {
  std::vector<std::vector<PromptRecord>> got(groups);
  for (bool any = true; any;) {
    any = false;
    for (size_t group = 0; group < groups; ++group)
      for (size_t i = 0; i < at_once; ++i) {
        PromptRecord record;
        RowPlace place;
        if (!order.next(group, i == 0, record, place)) break;
        CHECK(place.ordered);
        got[group].push_back(std::move(record));
        any = true;
      }
  }
  for (size_t group = 0; group < groups; ++group) CHECK(order.exhausted(group));
  CHECK(order.rows_left() == 0);
  return got;
}

}  // namespace

TEST_CASE("records are sorted by their keys, also those that memory does not hold", "[order]") {
  const TemporaryDirectory directory;
  std::mt19937_64 random(7);
  for (const uint64_t memory : {uint64_t{1} << 20, uint64_t{4000}, uint64_t{1}}) {
    CAPTURE(memory);
    RecordSorter sorter(directory.path(), memory);
    std::vector<std::pair<std::string, std::string>> want;
    for (int i = 0; i < 500; ++i) {
      std::string key(random() % 40, '\0');
      for (char& c : key) c = static_cast<char>(random() % 3 * 127);
      want.emplace_back(key, std::to_string(i));
      sorter.add(want.back().first, want.back().second);
    }
    std::stable_sort(want.begin(), want.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    sorter.finish();
    size_t count = 0;
    for (KeyedRecord got; sorter.next(got); ++count) {
      REQUIRE(count < want.size());
      CHECK(got.key == want[count].first);
      CHECK(got.record == want[count].second);
    }
    CHECK(count == want.size());
  }
  CHECK(std::filesystem::is_empty(directory.path()));
}

TEST_CASE("rows that repeat stay with the row that is computed, and cost nothing", "[order]") {
  const TemporaryDirectory directory;
  RowOrder order({.directory = directory.path(), .num_groups = 4});
  std::map<int32_t, uint64_t> prompts;  // of rows that repeat
  for (uint64_t row = 0; row < 4000; ++row) {
    PromptRecord record = ids_of(row, {static_cast<int32_t>(row * 7 % 40), 1, 2});
    if (row % 2 == 0)  // each of these is computed, wherever it is
      record.sampling = {.draw = {.temperature = 1}, .max_tokens = 5};
    order.add(std::move(record));
  }
  order.finish();
  std::map<int32_t, std::set<size_t>> groups_of;  // of rows that repeat
  const auto got = share_out(order, 4);
  for (size_t group = 0; group < 4; ++group)
    for (const PromptRecord& record : got[group])
      if (record.row % 2 == 1) groups_of[record.prompt_token_ids->front()].insert(group);
  CHECK(groups_of.size() == 20);
  for (const auto& [prompt, groups] : groups_of) CHECK(groups.size() == 1);
  // What is drawn is shared out evenly all the same.
  for (const auto& rows : got) CHECK(std::abs(static_cast<double>(rows.size()) - 1000) < 150);
}

TEST_CASE("a row comes out of the order as it went in", "[order]") {
  const TemporaryDirectory directory;
  RowOrder order({.directory = directory.path(), .num_groups = 1, .memory_bytes = 64});
  PromptRecord text{.row = 1, .id = "x", .prompt = std::string("a\0b", 3)};
  PromptRecord chat{.row = 2, .messages = R"({"messages":[]})"};
  PromptRecord bad{.row = 3, .id = "7", .id_kind = IdKind::integer, .prompt = "half", .error = "it is bad"};
  text.sampling = {.n = 3, .stop = {"s"}};
  for (const PromptRecord& record : {text, chat, bad, ids_of(4, {0, 255, 65536, 2147483647})})
    order.add(record);
  order.finish();
  std::map<uint64_t, PromptRecord> got;
  auto shared = share_out(order, 1);
  for (PromptRecord& record : shared[0]) got[record.row] = std::move(record);
  REQUIRE(got.size() == 4);
  CHECK(got[1].prompt == text.prompt);
  CHECK(got[1].sampling == text.sampling);
  CHECK(got[1].id == "x");
  CHECK(got[2].messages == chat.messages);
  CHECK(got[3].error == bad.error);
  CHECK(got[3].id_kind == IdKind::integer);
  CHECK(got[4].prompt_token_ids == std::vector<int32_t>{0, 255, 65536, 2147483647});
}

TEST_CASE("what begins alike goes to one group, and groups get like shares", "[order]") {
  const TemporaryDirectory directory;
  constexpr size_t kGroups = 4;
  constexpr int kPreambles = 40, kRows = 25;
  RowOrder order({.directory = directory.path(), .num_groups = kGroups, .memory_bytes = 20000});
  std::vector<PromptRecord> rows;
  for (int i = 0; i < kPreambles * kRows; ++i) {
    std::vector<int32_t> ids(200, i % kPreambles);
    ids.insert(ids.end(), {1000 + i, 1, 2});
    rows.push_back(ids_of(static_cast<uint64_t>(i), ids));
  }
  std::shuffle(rows.begin(), rows.end(), std::mt19937_64(3));
  for (PromptRecord& row : rows) order.add(std::move(row));
  order.finish();
  CHECK(order.rows_left() == kPreambles * kRows);
  const auto got = share_out(order, kGroups);
  std::map<int32_t, std::set<size_t>> groups_of;
  std::set<uint64_t> seen;
  for (size_t group = 0; group < kGroups; ++group) {
    CHECK(got[group].size() >= kPreambles * kRows / kGroups * 7 / 10);
    int32_t now = -1;
    std::set<int32_t> before;
    for (const PromptRecord& record : got[group]) {
      CHECK(seen.insert(record.row).second);
      const int32_t preamble = record.prompt_token_ids->front();
      groups_of[preamble].insert(group);
      if (preamble != now) CHECK(before.insert(now = preamble).second);  // they come together
    }
  }
  CHECK(seen.size() == kPreambles * kRows);
  for (const auto& [preamble, groups] : groups_of) CHECK(groups.size() == 1);
}

TEST_CASE("one beginning of much work is worth several groups", "[order]") {
  const TemporaryDirectory directory;
  for (const int32_t max_tokens : {1, 100}) {
    CAPTURE(max_tokens);
    RowOrder order({.directory = directory.path(), .num_groups = 4});
    for (int i = 0; i < 400; ++i) {
      std::vector<int32_t> ids(500, 1);
      ids.insert(ids.end(), {1000 + i, 1, 2});
      PromptRecord row = ids_of(static_cast<uint64_t>(i), ids);
      row.sampling.max_tokens = max_tokens;
      order.add(std::move(row));
    }
    order.finish();
    const auto got = share_out(order, 4);
    const auto used = std::count_if(got.begin(), got.end(), [](const auto& rows) { return !rows.empty(); });
    CHECK(used == (max_tokens == 1 ? 1 : 4));
  }
}

TEST_CASE("rows of one form travel and are kept with it once, and get it back", "[order]") {
  const TemporaryDirectory directory;
  const AnswerForm form{AnswerForm::Kind::json_schema, std::string(20'000, 'x')},
      other{AnswerForm::Kind::regex, std::string(20'000, 'x')};
  constexpr uint64_t kRows = 300;
  const auto form_of = [&](uint64_t row) {
    return row % 3 == 0 ? AnswerForm() : row % 3 == 1 ? form : other;
  };
  // The memory of one has room for both forms, the other's for none: it keeps them with the rows.
  for (const uint64_t memory : {uint64_t{1} << 20, uint64_t{1} << 14}) {
    RowOrder order({.directory = directory.path(), .num_groups = 1, .memory_bytes = memory});
    for (uint64_t row = 0; row < kRows; ++row) {
      PromptRecord record = ids_of(row, {static_cast<int32_t>(row % 7), 3});
      record.sampling.form = form_of(row);
      order.add(std::move(record));
    }
    order.finish();
    Handout handout;
    handout.records = share_out(order, 1)[0];
    handout.places.resize(handout.records.size());
    const std::string packed = pack(handout);
    CHECK(packed.size() < 45'000 + kRows * 300);
    const Handout again = unpack_handout(packed);
    REQUIRE(again.records.size() == kRows);
    for (const PromptRecord& record : handout.records) CHECK(record.sampling.form == form_of(record.row));
    for (const PromptRecord& record : again.records) CHECK(record.sampling.form == form_of(record.row));
  }
}
