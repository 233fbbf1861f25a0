#include <string>

#include "io/hdf5.h"
#include "tests/unit/input_fixture.h"

using namespace moerun;

namespace {

/// An HDF5 input with what `fill` puts in.
struct Hdf5Input : InputFixture {
  template <class Fill>
  explicit Hdf5Input(Fill fill) : InputFixture("a.h5", "") {
    hdf5::File file = hdf5::File::create(job.input.path);
    fill(file);
  }
};

template <class T>
void put(hdf5::File& file, const std::string& path, const std::vector<T>& values) {
  file.create_dataset<T>(path, {.chunk_rows = 4}).append(values);
}

void put_tokens(hdf5::File& file) {
  put<int32_t>(file, "prompts/tokens", {1, 2, 3, 4, 5});
  put<uint64_t>(file, "prompts/offsets", {0, 2, 4, 5});
}

void put_text(hdf5::File& file, const std::string& path, const std::vector<std::string>& values) {
  file.create_string_dataset(path, {.chunk_rows = 4}).append_strings(values);
}

}  // namespace

TEST_CASE("text inputs hold a prompt a line", "[input]") {
  const InputFixture input("a.txt",
                           "\xEF\xBB\xBF"
                           "first line\r\n\n  \n second \nthird");
  const std::vector<PromptRecord> rows = input.rows();
  REQUIRE(rows.size() == 3);
  CHECK(rows[0].prompt == "first line");
  CHECK(rows[1].prompt == " second ");
  CHECK(rows[2].prompt == "third");
  CHECK(input.check().num_rows == 3);
  CHECK(InputFixture("a.txt", "a\nb\xC3\n").faults() == "a.txt:2: byte 1 of the prompt is no valid UTF-8");
}

TEST_CASE("HDF5 inputs of token ids", "[input]") {
  const Hdf5Input input([](hdf5::File& file) {
    put_tokens(file);
    put<int64_t>(file, "prompts/id", {10, 11, 12});
  });
  const std::vector<PromptRecord> rows = input.rows();
  REQUIRE(rows.size() == 3);
  CHECK(rows[0].prompt_token_ids == std::vector<int32_t>{1, 2});
  CHECK(rows[1].prompt_token_ids == std::vector<int32_t>{3, 4});
  CHECK(rows[2].prompt_token_ids == std::vector<int32_t>{5});
  CHECK(rows[2].id == "12");

  CHECK(rows[2].id_kind == IdKind::integer);
  const InputSummary summary = input.check();
  const auto source = open_input(input.job, InputFixture::kVocabulary, summary);
  PromptRecord record;
  source->seek(1);
  REQUIRE(source->next(record));
  CHECK(record.row == 1);
  CHECK(record.prompt_token_ids == std::vector<int32_t>{3, 4});
  source->seek(0);
  REQUIRE(source->next(record));
  CHECK(record.prompt_token_ids == std::vector<int32_t>{1, 2});
}

TEST_CASE("HDF5 ids of the whole range of int64 and uint64 come digit for digit", "[input]") {
  const Hdf5Input input([](hdf5::File& file) {
    put_tokens(file);
    put<uint64_t>(file, "prompts/id", {UINT64_MAX, (uint64_t{1} << 63) + 5, 0});
  });
  CHECK(input.faults().empty());
  const std::vector<PromptRecord> rows = input.rows();
  CHECK(rows[0].id == "18446744073709551615");
  CHECK(rows[1].id == "9223372036854775813");
  CHECK(rows[2].id == "0");
  const Hdf5Input least([](hdf5::File& file) {
    put_tokens(file);
    put<int64_t>(file, "prompts/id", {INT64_MIN, -1, INT64_MAX});
  });
  CHECK(least.rows()[0].id == "-9223372036854775808");
}

TEST_CASE("HDF5 inputs of many rows are read in blocks", "[input]") {
  constexpr uint64_t kRows = 10000;
  const Hdf5Input input([](hdf5::File& file) {
    std::vector<int32_t> tokens;
    std::vector<uint64_t> offsets{0};
    for (uint64_t row = 0; row < kRows; ++row) {
      tokens.insert(tokens.end(), 1 + row % 300, static_cast<int32_t>(row % 4096));
      offsets.push_back(tokens.size());
    }
    file.create_dataset<int32_t>("prompts/tokens", {.gzip = 1}).append(tokens);
    file.create_dataset<uint64_t>("prompts/offsets", {}).append(offsets);
  });
  const std::vector<PromptRecord> rows = input.rows();
  REQUIRE(rows.size() == kRows);
  for (uint64_t row = 0; row < kRows; ++row) {
    REQUIRE(rows[row].prompt_token_ids->size() == 1 + row % 300);
    REQUIRE(rows[row].prompt_token_ids->back() == static_cast<int32_t>(row % 4096));
  }
}

TEST_CASE("HDF5 inputs of text", "[input]") {
  const Hdf5Input input([](hdf5::File& file) {
    put_text(file, "prompts/text", {"a", "ü", "c"});
    put_text(file, "prompts/id", {"x", "y", "z"});
  });
  const std::vector<PromptRecord> rows = input.rows();
  REQUIRE(rows.size() == 3);
  CHECK(rows[1].prompt == "ü");
  CHECK(rows[1].id == "y");
}

TEST_CASE("rows of an HDF5 input may have sampling of their own", "[input]") {
  Hdf5Input input([](hdf5::File& file) {
    put_tokens(file);
    put_text(file, "prompts/sampling",
             {R"({"max_tokens": 0, "prompt_logprobs": true, "prompt_logprobs_start": 1})", "",
              R"({"stop": ["\n"], "seed": 5, "temperature": null})"});
  });
  input.job.sampling.max_tokens = 9;
  input.job.sampling.draw.temperature = 0.5F;
  const std::vector<PromptRecord> rows = input.rows();
  REQUIRE(rows.size() == 3);
  CHECK(rows[0].sampling.max_tokens == 0);
  CHECK(rows[0].sampling.prompt_logprobs_start == 1);
  CHECK(rows[1].sampling.max_tokens == 9);
  CHECK(!rows[1].sampling.scores_prompt());
  CHECK(rows[2].sampling.stop == std::vector<std::string>{"\n"});
  CHECK(rows[2].sampling.own_seed);
  CHECK(rows[2].sampling.draw.temperature == 0.5F);
  CHECK(input.check().num_rows == 3);
  CHECK(Hdf5Input([](hdf5::File& file) {
          put_tokens(file);
          put_text(file, "prompts/sampling",
                   {"[]", R"({"temperatur": 1})", R"({"prompt_is_greedy": true, "stop_token_ids": [4096]})"});
        }).faults() ==
        "a.h5: row 0: sampling: a line must be a JSON object, not []\n"
        "a.h5: row 1: there is no field \"sampling.temperatur\"; did you mean \"temperature\"?\n"
        "a.h5: row 2: prompt_is_greedy needs prompt_logprobs: true; stop token id 4096 is outside "
        "of the model's vocabulary of 4096");
  CHECK(Hdf5Input([](hdf5::File& file) {
          put_tokens(file), put_text(file, "prompts/sampling", {"", ""});
        }).faults() == "a.h5: /prompts/sampling has 2 entries for 3 rows");
  CHECK(Hdf5Input([](hdf5::File& file) {
          put_tokens(file), put<int32_t>(file, "prompts/sampling", {1, 2, 3});
        }).faults() == "a.h5: /prompts/sampling must be a list of strings");
}

TEST_CASE("bad rows of an HDF5 input are named by their numbers", "[input]") {
  CHECK(
      Hdf5Input([](hdf5::File& file) {
        put<int64_t>(file, "prompts/tokens", {1, 2, (int64_t{1} << 32) + 5});
        put<uint64_t>(file, "prompts/offsets", {0, 2, 2, 3});
        put_text(file, "prompts/id", {"x", "y", "x"});
      }).faults() ==
      "a.h5: row 1: the prompt has no tokens\n"
      "a.h5: row 2: prompt token 0 is 4294967301, outside of the model's vocabulary of 4096; the id \"x\" is "
      "a.h5: row 0's already");
  CHECK(Hdf5Input([](hdf5::File& file) {
          put_text(file, "prompts/text", {"a", "", "b\xff"});
        }).faults() ==
        "a.h5: row 1: the prompt is empty\na.h5: row 2: byte 1 of the prompt is no valid UTF-8");
}

TEST_CASE("HDF5 files that are no input are refused", "[input]") {
  const auto faults = [](auto fill) { return Hdf5Input(fill).faults(); };
  using hdf5::File;
  CHECK(faults([](File& f) { put<float>(f, "weights", {1}); }) ==
        "a.h5: it has neither /prompts/tokens nor /prompts/text");
  CHECK(faults([](File& f) { put<int32_t>(f, "prompts/tokens", {1}); }) ==
        "a.h5: it has /prompts/tokens without /prompts/offsets");
  CHECK(faults([](File& f) { put_tokens(f), put_text(f, "prompts/text", {"a"}); }) ==
        "a.h5: it has /prompts/text and /prompts/tokens; one of them must go");
  CHECK(faults([](File& f) {
          put<float>(f, "prompts/tokens", {1});
          put<uint64_t>(f, "prompts/offsets", {0, 1});
        }) == "a.h5: /prompts/tokens must be a list of integers");
  CHECK(faults([](File& f) { put<int32_t>(f, "prompts/text", {1}); }) ==
        "a.h5: /prompts/text must be a list of strings");
  const auto offsets = [&](const std::vector<int64_t>& values) {
    return faults([&](File& f) {
      put<int32_t>(f, "prompts/tokens", {1, 2, 3});
      put<int64_t>(f, "prompts/offsets", values);
    });
  };
  CHECK(offsets({0, 2}) == "a.h5: /prompts/offsets ends at 2, but /prompts/tokens has 3");
  CHECK(offsets({0, 9}) == "a.h5: /prompts/offsets ends at 9, but /prompts/tokens has 3");
  CHECK(offsets({1, 3}) == "a.h5: /prompts/offsets begins with 1, not 0");
  CHECK(offsets({0, 2, 1, 3}) == "a.h5: /prompts/offsets goes back at entry 2: 1 after 2");
  CHECK(offsets({0, -1, 3}) == "a.h5: /prompts/offsets goes back at entry 1: -1 after 0");
  CHECK(faults([](File& f) { put_tokens(f), put<int64_t>(f, "prompts/id", {1}); }) ==
        "a.h5: /prompts/id has 1 entries for 3 rows");
  CHECK(faults([](File& f) { f.create_string_dataset("prompts/text", {}); }) == "a.h5: it holds no prompts");
}

TEST_CASE("HDF5 files that are broken are refused", "[input]") {
  CHECK_THAT(InputFixture("a.h5", "no HDF5 at all").faults(),
             ContainsSubstring("a.h5 cannot be opened: HDF5 says: "));
  CHECK(InputFixture("a.h5", "").faults() == "a.h5: cannot be read: No such file or directory");
  const Hdf5Input input([](hdf5::File& file) {
    file.create_dataset<int32_t>("prompts/tokens", {}).append(std::vector<int32_t>(100000, 1));
    put<uint64_t>(file, "prompts/offsets", {0, 100000});
  });
  const std::string path = input.job.input.path;
  CHECK(input.faults().empty());
  // Every length that a copy may have been cut to: refused, never read past.
  for (uintmax_t bytes = std::filesystem::file_size(path); bytes > 1000;) {
    bytes = bytes * 2 / 3;
    std::filesystem::resize_file(path, bytes);
    CAPTURE(bytes);
    CHECK_THAT(input.faults(), ContainsSubstring("HDF5 says: "));
  }
}

TEST_CASE("random inputs depend on the seed and the row alone", "[input]") {
  InputFixture input("unused.jsonl", "");
  input.job.input.path.clear();
  input.job.input.random =
      RandomInput{.num_prompts = 200, .input_len = 100, .output_len = 50, .range_ratio = 0.5, .seed = 1};
  input.job.sampling.min_tokens = 60;
  const std::vector<PromptRecord> rows = input.rows();
  REQUIRE(rows.size() == 200);
  size_t shortest = SIZE_MAX, longest = 0;
  for (const PromptRecord& row : rows) {
    shortest = std::min(shortest, row.prompt_token_ids->size());
    longest = std::max(longest, row.prompt_token_ids->size());
    for (const int32_t id : *row.prompt_token_ids) REQUIRE((id >= 0 && id < InputFixture::kVocabulary));
    REQUIRE((row.sampling.max_tokens >= 25 && row.sampling.max_tokens <= 75));
    REQUIRE(row.sampling.min_tokens <= row.sampling.max_tokens);
    REQUIRE(row.sampling.ignore_eos);
  }
  CHECK((shortest >= 50 && shortest < 60));
  CHECK((longest > 140 && longest <= 150));

  const InputSummary summary = input.check();
  CHECK(summary.num_rows == 200);
  const auto source = open_input(input.job, InputFixture::kVocabulary, summary);
  source->seek(77);
  PromptRecord record;
  REQUIRE(source->next(record));
  CHECK(record.row == 77);
  CHECK(record.prompt_token_ids == rows[77].prompt_token_ids);
  CHECK(record.sampling == rows[77].sampling);

  input.job.input.random->seed = 2;
  CHECK(input.rows()[77].prompt_token_ids != rows[77].prompt_token_ids);
  CHECK(input.check().checksum != summary.checksum);
  input.job.input.limit = 5;
  CHECK(input.check().num_rows == 5);
}
