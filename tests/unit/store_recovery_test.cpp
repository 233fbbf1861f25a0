// Run directories that are damaged under right checksums, and names that lead elsewhere.
#include <sys/stat.h>

#include <filesystem>

#include "io/hdf5.h"
#include "io/ledger.h"
#include "io/result_hdf5.h"
#include "io/run_directory.h"
#include "io/segment.h"
#include "store_fixture.h"
#include "tests/catch.h"

using namespace moerun;
namespace fs = std::filesystem;

namespace {

/// A run directory whose segments were made by hand.
struct MadeRun : StoreJob {
  MadeRun() { open(); }  // a manifest and an empty ledger

  std::string run_id() const {
    const RunDirectory directory(run());
    return directory.read_manifest().value().run_id;
  }
  SegmentRecord segment(uint64_t number, const std::vector<RowResult>& answers) {
    const std::string id = run_id();
    SegmentBuilder builder;
    for (const RowResult& answer : answers) builder.append(answer);
    records.push_back(builder.write(Directory(run(), Directory::Links::refused), segment_name(number), id));
    return records.back();
  }
  void name_all() const { write_ledger(Directory(run(), Directory::Links::refused), records); }

  /// The job goes on with `rows` answers and has the output of an undisturbed one, whatever is said.
  std::string goes_on(uint64_t rows) const {
    std::string said;
    {
      const OpenedStore opened = open();
      for (const std::string& notice : opened.notices) said += notice + "\n";
      INFO(said);
      REQUIRE(opened.store->num_answered() == rows);
    }
    REQUIRE(open().notices.size() == 1);  // mended for good
    REQUIRE(go() == num_rows - rows);
    const StoreJob undisturbed;
    undisturbed.go();
    REQUIRE(jsonl() == undisturbed.jsonl());
    return said;
  }

  std::vector<SegmentRecord> records;
};

std::vector<RowResult> answers_to(const std::vector<uint64_t>& rows) {
  std::vector<RowResult> answers;
  for (const uint64_t row : rows) answers.push_back(answer_to(row));
  return answers;
}

RowResult other_answer_to(uint64_t row) {
  RowResult result = answer_to(row);
  result.text += "!";
  return result;
}

}  // namespace

TEST_CASE("a segment that holds a row twice gives it once", "[store]") {
  MadeRun job;
  job.segment(1, answers_to({4, 2, 4, 7}));
  job.name_all();
  CHECK_THAT(job.goes_on(3), ContainsSubstring("segment-000001"));
}

TEST_CASE("a row that is sealed with two answers has none", "[store]") {
  MadeRun job;
  SECTION("in one segment") { job.segment(1, {answer_to(2), answer_to(5), other_answer_to(5)}); }
  SECTION("in two") {
    job.segment(1, {other_answer_to(5)});
    job.segment(2, answers_to({5, 2}));
  }
  job.name_all();
  CHECK_THAT(job.goes_on(1), ContainsSubstring("with other answers too"));
}

TEST_CASE("two segments that share rows give each once", "[store]") {
  MadeRun job;
  job.segment(1, answers_to({1, 2, 3}));
  job.segment(2, answers_to({3, 4, 1}));
  job.name_all();
  CHECK_THAT(job.goes_on(4), ContainsSubstring("segment-000002 holds 2 answers that are sealed already"));
}

TEST_CASE("rows that the input does not have are dropped", "[store]") {
  MadeRun job;
  job.segment(1, answers_to({39, 40, 1000000}));
  job.name_all();
  CHECK_THAT(job.goes_on(1), ContainsSubstring("2 rows that the input does not have"));
}

TEST_CASE("segments count without the ledger, and a ledger does not without segments", "[store]") {
  MadeRun job;
  job.segment(3, answers_to({1, 2}));
  job.segment(4, answers_to({3}));
  SECTION("the ledger is gone") {
    fs::remove(job.run() + "/ledger");
    CHECK_THAT(job.goes_on(3), ContainsSubstring("ledger is missing"));
  }
  SECTION("a segment is not in it") {
    job.records.pop_back();
    job.name_all();
    CHECK_THAT(job.goes_on(3), ContainsSubstring("segment-000004 is not named by the ledger, and is sound"));
  }
  SECTION("it names what is not there") {
    job.name_all();
    fs::remove(job.run() + "/segment-000003");
    CHECK_THAT(job.goes_on(1), ContainsSubstring("2 rows are answered again"));
  }
  SECTION("it names a segment twice") {
    job.records.push_back(job.records.front());
    job.name_all();
    job.goes_on(3);
  }
  SECTION("it leads out of its directory") {
    fs::copy(job.run() + "/segment-000003", job.directory / "segment-000003");
    job.records.front().name = "../segment-000003";
    fs::remove(job.run() + "/segment-000003");
    job.name_all();
    job.goes_on(1);
    CHECK(fs::exists(job.directory / "segment-000003"));
  }
}

TEST_CASE("a ledger that says less of its rows than they hold costs no column", "[store]") {
  MadeRun job;
  job.segment(1, answers_to({2, 6, 9}));
  SegmentRecord& record = job.records.front();
  record.traits = {};
  record.first_row = 9, record.last_row = 2;
  job.name_all();
  {
    OpenedStore opened = job.open();
    REQUIRE(opened.store->num_answered() == 3);
    for (uint64_t row = 0; row < job.num_rows; ++row) {
      if (opened.store->answered(row)) continue;
      RowResult plain = answer_to(row);
      plain.logprobs.clear(), plain.top_logprobs.clear(), plain.prompt_logprobs.clear();
      plain.num_top_logprobs = 0;
      opened.store->append(std::move(plain));
    }
    opened.store->finish();
  }
  const hdf5::File file = hdf5::File::open(job.job.output.path);
  const auto offsets = file.dataset("results/offsets").read<uint64_t>(0, job.num_rows + 1);
  const auto logprobs = file.dataset("results/logprobs").read<float>(offsets[9], offsets[10] - offsets[9]);
  CHECK(logprobs == answer_to(9).logprobs);
}

TEST_CASE("an answer that no output could hold is not sealed", "[store]") {
  SegmentBuilder builder;
  RowResult result = answer_to(4);
  SECTION("log-probabilities") { result.logprobs.pop_back(); }
  SECTION("most likely tokens") { result.top_logprobs.pop_back(); }
  SECTION("their number") { result.num_top_logprobs = -1; }
  CHECK_THROWS_WITH(builder.append(result), ContainsSubstring("the answer to row 4 is damaged"));
  CHECK(builder.empty());
}

TEST_CASE("what is read back must be what was written", "[store]") {
  const TemporaryDirectory directory;
  const std::string path = directory / "out.h5";
  RowTraits traits;
  for (uint64_t row = 0; row < 20; ++row) traits.add(answer_to(row));
  Hdf5Results results(path, traits, 20);
  for (uint64_t row = 0; row < 20; ++row) results.append(answer_to(row));
  const WrittenResults written = results.finish({.fingerprint = "[]", .num_rows = 20});
  REQUIRE(written.columns.size() == 14);
  read_back(path, written);
  for (size_t i = 0; i < written.columns.size(); ++i) {
    INFO(written.columns[i].name);
    WrittenResults other = written;
    other.columns[i].sha256[0] ^= 1;
    CHECK_THROWS_WITH(read_back(path, other), ContainsSubstring(other.columns[i].name + " has other values"));
    other = written;
    ++other.columns[i].rows;
    CHECK_THROWS_WITH(read_back(path, other), ContainsSubstring(other.columns[i].name + " has "));
    other = written;
    other.columns.erase(other.columns.begin() + static_cast<ptrdiff_t>(i));
    CHECK_THROWS_WITH(read_back(path, other), ContainsSubstring("it has the columns"));
  }
  WrittenResults other = written;
  other.attributes.num_rows = 19;
  CHECK_THROWS_WITH(read_back(path, other), ContainsSubstring("attribute num_rows"));
  other = written;
  other.attributes.fingerprint = "[1]";
  CHECK_THROWS_WITH(read_back(path, other), ContainsSubstring("attribute fingerprint"));
}

TEST_CASE("links and pipes in the run directory are not followed", "[store]") {
  MadeRun job;
  job.segment(1, answers_to({1, 2}));
  job.name_all();
  const std::string elsewhere = job.directory / "elsewhere", segment = job.run() + "/segment-000001";
  write_file_durably(elsewhere, {"untouched"});
  SECTION("a segment") {
    fs::rename(segment, job.directory / "moved");
    fs::create_symlink(job.directory / "moved", segment);
    CHECK_THAT(job.goes_on(0), ContainsSubstring("segment-000001 is a symbolic link"));
  }
  SECTION("a pipe") {
    fs::remove(segment);
    REQUIRE(::mkfifo(segment.c_str(), 0600) == 0);
    CHECK_THAT(job.goes_on(0), ContainsSubstring("segment-000001 is no regular file"));
  }
  SECTION("the ledger") {
    fs::remove(job.run() + "/ledger");
    fs::create_symlink(elsewhere, job.run() + "/ledger");
    CHECK_THAT(job.goes_on(2), ContainsSubstring("ledger is a symbolic link"));
  }
  SECTION("temporary names, where the output is merged and the ledger is written") {
    for (const char* name : {"out.h5.tmp", "out.jsonl.tmp", "out.h5.run/ledger.tmp"})
      fs::create_symlink(elsewhere, job.directory / name);
    fs::remove(job.run() + "/ledger");
    job.goes_on(2);
  }
  SECTION("a directory of others") {
    fs::create_directory(job.run() + "/theirs");
    job.goes_on(2);
    CHECK(fs::exists(job.run() + "/theirs"));
    CHECK(job.open().already_finished());
  }
  CHECK(read_file(elsewhere) == "untouched");
}

TEST_CASE("a link in place of the output, the run directory, its lock or manifest is refused", "[store]") {
  const StoreJob job;
  const std::string elsewhere = job.directory / "elsewhere",
                    link = GENERATE("out.h5", "out.jsonl", "out.h5.run", "out.h5.run/lock",
                                    "out.h5.run/manifest.json");
  INFO(link);
  const bool leads_somewhere = GENERATE(true, false);
  if (link.starts_with("out.h5.run/")) fs::create_directory(job.run());
  if (leads_somewhere && link == "out.h5.run") fs::create_directory(elsewhere);
  if (leads_somewhere && link != "out.h5.run") write_file_durably(elsewhere, {"untouched"});
  fs::create_symlink(elsewhere, job.directory / link);
  CHECK_THROWS_AS(job.open(), Error);
  CHECK(fs::is_symlink(job.directory / link));
  CHECK(fs::exists(elsewhere) == leads_somewhere);
  if (leads_somewhere && link != "out.h5.run") CHECK(read_file(elsewhere) == "untouched");
}

TEST_CASE("--fresh removes no link and nothing that one leads to", "[store]") {
  const StoreJob job;
  write_file_durably(job.directory / "elsewhere", {"untouched"});
  fs::create_symlink(job.directory / "elsewhere", job.directory / GENERATE("out.h5", "out.jsonl"));
  CHECK_THROWS_AS(job.open(true), BadInput);
  CHECK(read_file(job.directory / "elsewhere") == "untouched");
}

TEST_CASE("what appears under the output's name while a job runs is not replaced", "[store]") {
  const StoreJob job;
  const std::string name = GENERATE("out.h5", "out.jsonl"), path = job.directory / name;
  const bool is_link = GENERATE(false, true);
  {
    OpenedStore opened = job.open();
    for (uint64_t row = 0; row < job.num_rows; ++row) opened.store->append(answer_to(row));
    if (is_link)
      fs::create_symlink(job.directory / "nowhere", path);
    else
      write_file_durably(path, {"of another"});
    try {
      opened.store->finish();
      FAIL("it was replaced");
    } catch (const Error& error) {
      CHECK(error.code() == ExitCode::stopped);
      CHECK_THAT(error.what(), ContainsSubstring(path + " appeared while the job ran"));
    }
  }
  CHECK((is_link ? fs::is_symlink(path) : read_file(path) == "of another"));
  CHECK_THROWS_AS(job.open(), BadInput);  // still in the way
  fs::remove(path);
  CHECK(job.open().store->num_answered() == job.num_rows);
  CHECK(job.go() == 0);
  CHECK(fs::file_size(job.job.output.jsonl) > 0);
  CHECK_FALSE(fs::exists(job.run()));
}
