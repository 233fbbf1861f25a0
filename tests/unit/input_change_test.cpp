#include <filesystem>
#include <fstream>
#include <string>

#include "io/hdf5.h"
#include "io/line_reader.h"
#include "tests/unit/input_fixture.h"

using namespace moerun;

namespace {

/// Lines of several parts (1 MiB each).
std::string many_lines(uint64_t count) {
  std::string text;
  for (uint64_t row = 0; row < count; ++row)
    text += "{\"prompt\": \"" + std::to_string(row) + std::string(200, 'x') + "\"}\n";
  return text;
}

void overwrite(const std::string& path, uint64_t at, const std::string& bytes) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(at));
  file << bytes;
}

/// Rows that come before the source throws; the message.
std::pair<uint64_t, std::string> rows_until_fault(RecordSource& source) {
  uint64_t rows = 0;
  try {
    for (PromptRecord record; source.next(record);) ++rows;
  } catch (const BadInput&) {
    FAIL("a change while the job runs is no bad input");
  } catch (const Error& error) {
    return {rows, error.what()};
  }
  return {rows, ""};
}

}  // namespace

TEST_CASE("a JSONL input that is rewritten in place at the same size is noticed before a row of it goes out",
          "[input]") {
  const std::string text = many_lines(20000);
  InputFixture input("a.jsonl", text);
  const InputSummary summary = input.check();
  CHECK(summary.contents->digests.size() == (text.size() + (1 << 20) - 1) >> 20);
  CHECK(rows_until_fault(*open_input(input.job, InputFixture::kVocabulary, summary)) ==
        std::pair<uint64_t, std::string>(20000, ""));

  const auto source = open_input(input.job, InputFixture::kVocabulary, summary);
  PromptRecord first;
  REQUIRE(source->next(first));
  const size_t changed_at = 3 * (size_t{1} << 20) + 500;  // in the fourth part
  overwrite(input.job.input.path, changed_at, "y");
  const auto [rows, fault] = rows_until_fault(*source);
  CHECK_THAT(fault, ContainsSubstring("a.jsonl changed while the job ran: from byte 3145728 on"));
  CHECK(rows + 1 <= 3 * (size_t{1} << 20) / 200);
  CHECK(rows > 10000);
  // The same file is another input now.
  CHECK(input.check().checksum != summary.checksum);
  // And put back, it is the same.
  overwrite(input.job.input.path, changed_at, text.substr(changed_at, 1));
  CHECK(input.check().checksum == summary.checksum);
  CHECK(rows_until_fault(*open_input(input.job, InputFixture::kVocabulary, summary)).second.empty());
}

TEST_CASE("inputs that were cut or grew are noticed, also when the job seeks", "[input]") {
  const std::string text = many_lines(10000);
  for (const std::string& now :
       {text.substr(0, size_t{1} << 20), text.substr(0, text.size() - 1), text + "{}\n"}) {
    InputFixture input("a.jsonl", text);
    const InputSummary summary = input.check();
    const auto source = open_input(input.job, InputFixture::kVocabulary, summary);
    std::ofstream(input.job.input.path, std::ios::binary | std::ios::trunc) << now;
    CHECK_THROWS_WITH(
        [&] {
          source->seek(9000);
          for (PromptRecord record; source->next(record);) {
          }
        }(),
        ContainsSubstring("changed while the job ran"));
  }
}

TEST_CASE("the parts of a large file stay few", "[input]") {
  const TemporaryDirectory dir;
  std::ofstream(dir / "a.txt") << "a\n";
  std::filesystem::resize_file(dir / "a.txt", uint64_t{200} << 30);  // holes
  LineReader lines(dir / "a.txt");
  std::string_view line;
  REQUIRE(lines.next(line));
  CHECK(line == "a");
}

TEST_CASE("an HDF5 input that changes is noticed, whichever rows the job asks for", "[input]") {
  constexpr int32_t kRows = 20000;
  InputFixture input("a.h5", "");
  const auto write = [&](int32_t seventh) {
    hdf5::File file = hdf5::File::create(input.job.input.path);
    std::vector<int32_t> tokens;
    std::vector<uint64_t> offsets{0};
    for (int32_t row = 0; row < kRows; ++row) {
      tokens.push_back(row == 15000 ? seventh : row % 4096);
      offsets.push_back(tokens.size());
    }
    file.create_dataset<int32_t>("prompts/tokens", {}).append(tokens);
    file.create_dataset<uint64_t>("prompts/offsets", {}).append(offsets);
  };
  write(7);
  const InputSummary summary = input.check();
  CHECK(summary.contents->begins == std::vector<uint64_t>{0, 4096, 8192, 12288, 16384});
  write(8);
  auto source = open_input(input.job, InputFixture::kVocabulary, summary);
  const auto [rows, fault] = rows_until_fault(*source);
  CHECK(rows == 12288);
  CHECK_THAT(fault, ContainsSubstring("a.h5 changed while the job ran: from row 12288 on"));
  source->seek(19000);  // behind the change
  PromptRecord record;
  REQUIRE(source->next(record));
  CHECK(record.row == 19000);
  source->seek(16000);
  CHECK_THROWS_WITH(source->next(record), ContainsSubstring("changed while the job ran"));
  CHECK(input.check().checksum != summary.checksum);
  source.reset();  // HDF5 locks what is open
  write(7);
  CHECK(input.check().checksum == summary.checksum);
}
