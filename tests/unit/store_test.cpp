#include "io/result_store.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "io/hdf5.h"
#include "io/hdf5_child.h"
#include "io/ledger.h"
#include "store_fixture.h"
#include "tests/catch.h"

using namespace moerun;
namespace fs = std::filesystem;

TEST_CASE("a job's answers come out in row order, in both forms", "[store]") {
  const StoreJob job;
  REQUIRE(job.go(17) == job.num_rows);
  CHECK_FALSE(fs::exists(job.run()));

  std::vector<nlohmann::json> lines;
  const std::string text = job.jsonl();
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    lines.push_back(nlohmann::json::parse(text.substr(begin, end - begin)));
    begin = end + 1;
  }
  REQUIRE(lines.size() == job.num_rows);

  const hdf5::File file = hdf5::File::open(job.job.output.path);
  const auto all = [&](const std::string& name) { return file.dataset("results/" + name); };
  const auto offsets = all("offsets").read<uint64_t>(0, job.num_rows + 1);
  const auto text_offsets = all("text_offsets").read<uint64_t>(0, job.num_rows + 1);
  const auto prompt_offsets = all("prompt_offsets").read<uint64_t>(0, job.num_rows + 1);
  CHECK(all("tokens").rows() == offsets.back());
  CHECK(all("logprobs").rows() == offsets.back());
  CHECK(all("top_tokens").shape() == std::vector<uint64_t>{offsets.back(), 2});
  const auto ids = all("id").read_strings(0, job.num_rows);
  const auto integers = all("id_is_integer").read<uint8_t>(0, job.num_rows);
  const auto errors = all("error").read_strings(0, job.num_rows);
  const auto reasons = all("finish_reason").read_strings(0, job.num_rows);
  const auto prompt_lengths = all("prompt_length").read<int32_t>(0, job.num_rows);

  for (uint64_t row = 0; row < job.num_rows; ++row) {
    INFO("row " << row);
    const RowResult want = answer_to(row);
    const uint64_t begin = offsets[row], count = offsets[row + 1] - begin;
    CHECK(all("tokens").read<int32_t>(begin, count) == want.token_ids);
    CHECK(all("logprobs").read<float>(begin, count) == want.logprobs);
    const auto top_tokens = all("top_tokens").read<int32_t>(begin, count);
    const auto top_logprobs = all("top_logprobs").read<float>(begin, count);
    for (size_t i = 0; i < want.top_logprobs.size(); ++i)
      CHECK(want.top_logprobs[i] == std::pair(top_tokens[i], top_logprobs[i]));
    const auto bytes =
        all("text").read<uint8_t>(text_offsets[row], text_offsets[row + 1] - text_offsets[row]);
    CHECK(std::string(bytes.begin(), bytes.end()) == want.text);
    const auto prompt = all("prompt_logprobs")
                            .read<float>(prompt_offsets[row], prompt_offsets[row + 1] - prompt_offsets[row]);
    REQUIRE(prompt.size() == want.prompt_logprobs.size());
    for (size_t i = 0; i < prompt.size(); ++i)
      CHECK((i == 0 ? std::isnan(prompt[i]) : prompt[i] == want.prompt_logprobs[i]));
    CHECK(ids[row] == want.id);
    CHECK(errors[row] == want.error);
    CHECK(reasons[row] == name_of(want.finish_reason));
    CHECK(prompt_lengths[row] == want.prompt_length);

    const nlohmann::json& line = lines[row];
    CHECK(line["row"] == row);
    const bool integer = want.id_kind == IdKind::integer;
    CHECK(line["id"] == (integer ? nlohmann::json(std::stoull(want.id)) : nlohmann::json(want.id)));
    CHECK(integers[row] == integer);
    CHECK(line["prompt_length"] == want.prompt_length);
    CHECK(line["token_ids"] == want.token_ids);
    CHECK(line["text"] == want.text);
    CHECK(line["finish_reason"] == name_of(want.finish_reason));
    CHECK((want.error.empty() ? line["error"].is_null() : line["error"] == want.error));
    if (!want.logprobs.empty()) CHECK(line["logprobs"].get<std::vector<float>>() == want.logprobs);
    for (size_t i = 0; i < want.top_logprobs.size(); ++i)
      CHECK(line["top_logprobs"][i / 2][i % 2].get<std::pair<int32_t, float>>() == want.top_logprobs[i]);
    if (!want.prompt_logprobs.empty()) {
      CHECK(line["prompt_logprobs"][0].is_null());
      for (size_t i = 1; i < want.prompt_logprobs.size(); ++i)
        CHECK(line["prompt_logprobs"][i].get<float>() == want.prompt_logprobs[i]);
    }
  }
  CHECK(file.number_attribute("num_row_errors") == 3);
  CHECK(file.number_attribute("seed") == 7);
  CHECK(file.string_attribute("job") == "model: x");
}

TEST_CASE("the order of answers does not show in the output", "[store]") {
  const StoreJob one, other;
  one.go(1);
  other.answer_and_seal(31, 40);
  other.answer_and_seal(3, 12);
  CHECK(other.go(7) == 40 - 9 - 9);
  CHECK(one.jsonl() == other.jsonl());
  const hdf5::File a = hdf5::File::open(one.job.output.path), b = hdf5::File::open(other.job.output.path);
  const auto tokens = a.dataset("results/tokens");
  CHECK(tokens.read<int32_t>(0, tokens.rows()) ==
        b.dataset("results/tokens").read<int32_t>(0, tokens.rows()));
}

TEST_CASE(
    "several answers are flat columns, a row is sealed whole, and one answer a row leaves no trace of them",
    "[store]") {
  StoreJob one, other;
  one.several = other.several = true;
  one.go(1);
  other.answer_and_seal(31, 40);
  CHECK(other.go(7) == 40 - 9);
  CHECK(one.jsonl() == other.jsonl());
  for (const StoreJob* job : {&one, &other}) {
    const hdf5::File file = hdf5::File::open(job->job.output.path);
    const auto all = [&](const std::string& name) { return file.dataset("results/" + name); };
    std::vector<uint64_t> rows;
    std::vector<int32_t> indices;
    std::vector<std::vector<int32_t>> tokens;
    std::vector<std::string> reasons;
    std::vector<uint8_t> greedy;
    std::vector<int32_t> truncated, best;
    for (uint64_t row = 0; row < job->num_rows; ++row) {
      const RowResult want = several_answers_to(row);
      for (size_t index = 0; index <= want.more_answers.size(); ++index) {
        rows.push_back(row), indices.push_back(static_cast<int32_t>(index));
        tokens.push_back(index == 0 ? want.token_ids : want.more_answers[index - 1].token_ids);
        reasons.emplace_back(
            name_of(index == 0 ? want.finish_reason : want.more_answers[index - 1].finish_reason));
      }
      const auto count = static_cast<size_t>(want.num_prompt_top_logprobs);
      for (size_t i = 0; i < want.prompt_logprobs.size(); ++i)
        for (size_t k = 0; k < 3; ++k)
          best.push_back(k < count ? want.prompt_top_logprobs[i * count + k].first : -1);
      truncated.push_back(std::max(want.prompt_truncated, 0));
      greedy.insert(greedy.end(), want.prompt_is_greedy.begin(), want.prompt_is_greedy.end());
      if (want.prompt_is_greedy.empty()) greedy.insert(greedy.end(), want.prompt_logprobs.size(), 255);
    }
    REQUIRE(rows.size() > job->num_rows);
    CHECK(all("answer_row").read<uint64_t>(0, all("answer_row").rows()) == rows);
    CHECK(all("answer_index").read<int32_t>(0, all("answer_index").rows()) == indices);
    CHECK(all("finish_reason").read_strings(0, all("finish_reason").rows()) == reasons);
    CHECK(all("prompt_is_greedy").read<uint8_t>(0, all("prompt_is_greedy").rows()) == greedy);
    CHECK(all("prompt_truncated").read<int32_t>(0, all("prompt_truncated").rows()) == truncated);
    CHECK(all("prompt_top_tokens").read<int32_t>(0, all("prompt_top_tokens").rows()) == best);
    CHECK(all("prompt_top_logprobs").rows() == all("prompt_top_tokens").rows());
    CHECK(all("id").rows() == job->num_rows);
    const auto offsets = all("offsets").read<uint64_t>(0, rows.size() + 1);
    for (size_t i = 0; i < rows.size(); ++i)
      CHECK(all("tokens").read<int32_t>(offsets[i], offsets[i + 1] - offsets[i]) == tokens[i]);
  }
  const StoreJob plain;
  plain.go(1);
  const hdf5::File file = hdf5::File::open(plain.job.output.path);
  for (const char* name : {"answer_row", "answer_index", "prompt_is_greedy", "prompt_truncated",
                           "prompt_top_tokens", "prompt_top_logprobs"})
    CHECK_FALSE(file.has(std::string("results/") + name));
}

TEST_CASE("a job goes on where it ended", "[store]") {
  const StoreJob job;
  job.answer_and_seal(0, 25);
  OpenedStore opened = job.open();
  REQUIRE_FALSE(opened.already_finished());
  CHECK(opened.store->num_answered() == 25);
  CHECK(opened.store->answered(24));
  CHECK_FALSE(opened.store->answered(25));
  CHECK(opened.store->num_row_errors() == 2);
  REQUIRE(opened.notices.size() == 1);
  CHECK(opened.notices[0].find("25 of 40 rows are answered") != std::string::npos);
  CHECK_THROWS_WITH(opened.store->append(answer_to(3)), "row 3 was answered twice");
  CHECK_THROWS_WITH(opened.store->append(answer_to(40)), ContainsSubstring("the input has 40 rows"));
}

TEST_CASE("what was not sealed is not answered", "[store]") {
  const StoreJob job;
  {
    OpenedStore opened = job.open(false, {.seal_bytes = 1 << 20, .seal_seconds = 1e9});
    for (uint64_t row = 0; row < 9; ++row) opened.store->append(answer_to(row));
    opened.store->seal_if_due();
    CHECK_THROWS_WITH(opened.store->finish(), ContainsSubstring("9 of 40 rows are answered"));
    for (uint64_t row = 9; row < 20; ++row) opened.store->append(answer_to(row));
  }
  CHECK(job.open().store->num_answered() == 9);  // finish() sealed these before it refused
}

TEST_CASE("answers are sealed by size, and when the last seal is old", "[store]") {
  const StoreJob job;
  const auto ledger_bytes = [&] { return read_file(job.run() + "/ledger").size(); };
  OpenedStore opened = job.open(false, {.seal_bytes = 1 << 20, .seal_seconds = 0});
  opened.store->append(answer_to(0));
  CHECK(ledger_bytes() == 0);
  opened.store->seal_if_due();
  opened.store->seal();  // waits for what seal_if_due began
  CHECK(ledger_bytes() > 0);
}

TEST_CASE("a finished job is finished", "[store]") {
  const StoreJob job;
  job.go();
  const OpenedStore again = job.open();
  CHECK(again.already_finished());
  CHECK(again.finished.num_row_errors == 3);
  REQUIRE(again.notices.size() == 1);
  CHECK(again.notices[0].find("finished already") != std::string::npos);
  CHECK_FALSE(fs::exists(job.run()));

  fs::remove(job.job.output.jsonl);
  CHECK_THROWS_AS(job.open(), BadInput);
}

TEST_CASE("another job's answers are refused, and what differs is named", "[store]") {
  StoreJob job;
  job.answer_and_seal(0, 5);
  job.fingerprint = {{"model", "abc"}, {"sampling.seed", "1"}, {"sampling.top_p", "1"}};
  const auto message =
      ContainsSubstring("sampling.seed was 0 and is now 1; sampling.top_p was absent and is now 1");
  CHECK_THROWS_WITH(job.open(), message);
  CHECK_THROWS_AS(job.open(), BadInput);
  job.fingerprint = {{"model", "abc"}, {"sampling.seed", "0"}};
  job.num_rows = 41;
  CHECK_THROWS_WITH(job.open(), ContainsSubstring("the input had 40 rows and now has 41"));
  job.num_rows = 40;
  CHECK(job.open().store->num_answered() == 5);  // being refused changed nothing

  job.go();
  job.fingerprint[1].second = "1";
  CHECK_THROWS_WITH(job.open(), ContainsSubstring("sampling.seed was 0 and is now 1"));
}

TEST_CASE("--fresh discards and says what", "[store]") {
  StoreJob job;
  job.answer_and_seal(0, 5);
  job.fingerprint[1].second = "1";
  {
    const OpenedStore opened = job.open(true);
    CHECK(opened.store->num_answered() == 0);
    REQUIRE(opened.notices.size() == 1);
    CHECK(opened.notices[0].find("Discarded 5 sealed answers") != std::string::npos);
  }
  CHECK(job.go() == 40);
  const OpenedStore opened = job.open(true);
  CHECK_FALSE(opened.already_finished());
  REQUIRE(opened.notices.size() == 2);
  CHECK(opened.notices[0].find("Discarded the finished output") != std::string::npos);
  CHECK_FALSE(fs::exists(job.job.output.path));
  CHECK_FALSE(fs::exists(job.job.output.jsonl));
}

TEST_CASE("files of others under the output's names are refused", "[store]") {
  const StoreJob job;
  SECTION("no HDF5") { write_file_durably(job.job.output.path, {"not HDF5"}); }
  SECTION("HDF5 of another program") { hdf5::File::create(job.job.output.path).close(); }
  SECTION("a JSONL file") { write_file_durably(job.job.output.jsonl, {"{}\n"}); }
  SECTION("a directory") { fs::create_directory(job.job.output.path); }
  CHECK_THROWS_AS(job.open(), BadInput);
  CHECK_FALSE(fs::exists(job.run()));
}

TEST_CASE("attributes of an HDF5 file under the output's name are read where they are one value", "[store]") {
  const StoreJob job;
  const hdf5::File file = hdf5::File::create(job.job.output.path);
  const auto write = [&](const char* name, hsize_t count) {
    const hdf5::Handle space(H5Screate_simple(1, &count, nullptr), H5Sclose);
    const hdf5::Handle attribute(
        H5Acreate2(file.hid(), name, H5T_STD_U64LE, space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
    const std::vector<uint64_t> values(count, 7);
    REQUIRE(H5Awrite(attribute.get(), H5T_NATIVE_UINT64, values.data()) >= 0);
  };
  write("one", 1);
  write("many", 4096);
  CHECK(file.number_attribute("one") == 7);
  CHECK_THROWS_WITH(file.number_attribute("many"), ContainsSubstring("it is not one value"));
  CHECK_THROWS_WITH(file.string_attribute("many"), ContainsSubstring("it is not one value"));
}

TEST_CASE("another process looks at what has the output's name", "[store]") {
  const StoreJob job;
  job.go();
  CHECK(read_finished_output(job.job.output.path).num_rows == 40);
  CHECK(read_finished_output(job.job.output.path).program_version == "1");
  fs::resize_file(job.job.output.path, 2000);
  CHECK_THROWS_WITH(job.open(), ContainsSubstring("exists and is no finished output of moerun"));
  CHECK_THROWS_AS(job.open(), BadInput);
}

TEST_CASE("a manifest that is no manifest's size is not read into memory", "[store]") {
  const StoreJob job;
  job.answer_and_seal(0, 5);
  fs::resize_file(job.run() + "/manifest.json", uint64_t{1} << 40);  // a file with a hole
  CHECK_THROWS_WITH(job.open(), ContainsSubstring("and at most 16777216 are read"));
  CHECK_THROWS_AS(job.open(), BadInput);
}

TEST_CASE("numbers of the ledger and the manifest are whole and in range, or damage", "[store]") {
  const auto parsed = [](const std::string& rows) {
    const std::string text =
        R"({"name": "segment-000001", "bytes": 600, "rows": )" + rows +
        R"(, "first_row": 0, "last_row": 4, "sha256": "", "row_errors": 1, "num_top_logprobs": 2, "logprobs": true,)"
        R"( "prompt_logprobs": false})";
    return parse_ledger(fmt::format("{:08x} {}\n", crc32_of(text), text));
  };
  CHECK(parsed("18446744073709551615").segments.at(0).rows == UINT64_MAX);
  for (const char* rows : {"1e30", "3.0", "-1", "true", "18446744073709551616", "null"}) {
    INFO(rows);
    CHECK(parsed(rows).segments.empty());
  }
  const StoreJob job;
  job.answer_and_seal(0, 5);
  const std::string path = job.run() + "/manifest.json";
  std::string text = read_file(path);
  const size_t at = text.find("\"num_rows\": 40");
  REQUIRE(at != std::string::npos);
  write_file_durably(path, {text.replace(at, 14, "\"num_rows\": 4e99")});
  CHECK_THROWS_WITH(job.open(),
                    ContainsSubstring("manifest.json cannot be read (num_rows is no whole number"));
  CHECK_THROWS_AS(job.open(), BadInput);
}

TEST_CASE("no directory for the output is a bad job", "[store]") {
  StoreJob job;
  job.job.output.path = job.directory / "no/out.h5";
  CHECK_THROWS_WITH(job.open(), ContainsSubstring("is no directory"));
}

TEST_CASE("one output has one running job", "[store]") {
  const StoreJob job;
  const OpenedStore first = job.open();
  CHECK_THROWS_WITH(job.open(), ContainsSubstring("is locked by process " + std::to_string(getpid())));
  CHECK_THROWS_AS(job.open(true), BadInput);
}

TEST_CASE("an input without rows has an output without rows", "[store]") {
  StoreJob job;
  job.num_rows = 0;
  job.go();
  CHECK(job.jsonl().empty());
  CHECK(hdf5::File::open(job.job.output.path).dataset("results/offsets").read<uint64_t>(0, 1)[0] == 0);
}
