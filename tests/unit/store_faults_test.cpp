// The store when processes die, power goes, disks fill up, and bits flip: at every step it takes.
#include <fcntl.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <filesystem>

#include "io/hdf5.h"
#include "io/ledger.h"
#include "store_faulty_disk.h"
#include "store_fixture.h"
#include "tests/catch.h"

using namespace moerun;
namespace fs = std::filesystem;

namespace {

/// The answers in an output: every dataset but none of the attributes, which say when it was made.
std::string contents(const StoreJob& job) {
  const hdf5::File file = hdf5::File::open(job.job.output.path);
  std::string out = job.jsonl();
  if (!job.job.output.errors.empty()) out += "--\n" + read_file(job.job.output.errors);
  for (const char* name : {"tokens", "offsets", "text", "text_offsets", "prompt_length", "logprobs",
                           "top_tokens", "top_logprobs", "prompt_logprobs", "prompt_offsets"}) {
    const hdf5::Dataset dataset = file.dataset(std::string("results/") + name);
    const auto bytes = dataset.read<double>(0, dataset.rows());
    out.append(reinterpret_cast<const char*>(bytes.data()), bytes.size() * sizeof(double));
  }
  for (const char* name : {"id", "error", "finish_reason"})
    for (const std::string& value :
         file.dataset(std::string("results/") + name).read_strings(0, job.num_rows))
      out += value + "\n";
  return out;
}

/// A process of the job that seals every few answers, and says so.
void answer_all(const StoreJob& job, volatile uint64_t& acknowledged) {
  OpenedStore opened = job.open();
  if (opened.already_finished()) return;
  for (uint64_t i = 0, row = 0; i < job.num_rows; ++i, row = i * 5 % job.num_rows) {
    if (opened.store->answered(row)) continue;
    opened.store->append(answer_to(row));
    if (i % 4 != 3) continue;
    opened.store->seal();
    acknowledged = i + 1;
  }
  opened.store->finish();
  acknowledged = job.num_rows;
}

uint64_t rows_kept(const StoreJob& job) {
  const OpenedStore opened = job.open();
  return opened.already_finished() ? job.num_rows : opened.store->num_answered();
}

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(directory)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

struct SmallJob : StoreJob {
  SmallJob() {
    num_rows = 12;
    job.output.errors = directory / "out.errors.jsonl";  // row 10 has one
  }
};

std::string undisturbed() {
  const SmallJob job;
  volatile uint64_t acknowledged = 0;
  answer_all(job, acknowledged);
  return contents(job);
}

// Strikes a fault at every step of a job, each time in a new directory, and finishes the job after it.
void strike_every_step(Fault fault) {
  const std::string want = undisturbed();
  uint64_t step = 1;
  for (;; ++step) {
    const SmallJob job;
    INFO("step " << step);
    const auto body = [&](volatile uint64_t& acknowledged) { answer_all(job, acknowledged); };
    const FaultyRun run = run_on_faulty_disk(job.directory.path(), fault, step, body);
    INFO(run.message);
    // The output has its name only when it is whole.
    if (fs::exists(job.job.output.path)) REQUIRE(contents(job) == want);
    if (fault == Fault::full_disk && !run.finished) {
      REQUIRE(run.exit_code == static_cast<int>(ExitCode::stopped));
      REQUIRE_THAT(run.message, ContainsSubstring("No space left on device"));
      REQUIRE_FALSE(fs::exists(job.job.output.path + ".tmp"));  // it gave back the room it could
    }
    if (fault != Fault::lost_write) REQUIRE(rows_kept(job) >= run.acknowledged);
    if (fault == Fault::fails_once || fault == Fault::lost_write)
      REQUIRE((run.finished || run.exit_code == static_cast<int>(ExitCode::stopped) ||
               run.exit_code == static_cast<int>(ExitCode::fault)));
    const FaultyRun rest = run_on_faulty_disk(job.directory.path(), Fault::none, 0, body);
    INFO(rest.message);
    REQUIRE(rest.finished);
    REQUIRE(contents(job) == want);
    REQUIRE(names_in(job.directory.path()) ==
            std::vector<std::string>{"out.errors.jsonl", "out.h5", "out.jsonl"});
    if (!run.struck) break;
  }
  REQUIRE(step > 60);  // the steps of four seals, two outputs, and what surrounds them
}

}  // namespace

TEST_CASE("a job that is killed at any step goes on", "[store]") { strike_every_step(Fault::kill); }

TEST_CASE("a power cut at any step loses nothing that was acknowledged", "[store]") {
  strike_every_step(Fault::power_cut);
}

TEST_CASE("a disk that fills up at any step stops the job, which goes on with room", "[store]") {
  strike_every_step(Fault::full_disk);
}

TEST_CASE("a call that fails once at any step leaves no wrong output", "[store]") {
  strike_every_step(Fault::fails_once);
}

TEST_CASE("a write at any step that is lost without a word leaves no wrong output", "[store]") {
  strike_every_step(Fault::lost_write);
}

TEST_CASE("the model of the disk forgets what was not synced", "[store]") {
  const TemporaryDirectory directory;
  const std::string kept = directory / "kept", lost = directory / "lost", unnamed = directory / "unnamed";
  run_on_faulty_disk(directory.path(), Fault::power_cut, 8, [&](volatile uint64_t&) {
    const FileDescriptor a = open_file(kept, O_WRONLY | O_CREAT);
    write_all(a.get(), "kept", kept);                               // 1
    sync_file(a.get(), kept);                                       // 2
    Directory(directory.path(), Directory::Links::refused).sync();  // 3
    write_all(a.get(), " and lost", kept);                          // 4
    const FileDescriptor b = open_file(unnamed, O_WRONLY | O_CREAT);
    write_all(b.get(), "x", unnamed);  // 5
    sync_file(b.get(), unnamed);       // 6
    remove_file(kept);                 // 7
    remove_file(unnamed);              // 8
  });
  CHECK(names_in(directory.path()) == std::vector<std::string>{"kept"});
  CHECK(read_file(kept) == "kept");
}

TEST_CASE("a ledger torn at any byte keeps the lines before", "[store]") {
  const StoreJob job;
  job.answer_and_seal(0, 6);
  job.answer_and_seal(6, 11);
  const std::string path = job.run() + "/ledger", whole = read_file(path);
  const LedgerContents all = parse_ledger(whole);
  REQUIRE(all.segments.size() >= 2);
  REQUIRE_FALSE(all.torn);
  const size_t last_line = whole.rfind('\n', whole.size() - 2) + 1;
  for (size_t bytes = 0; bytes < whole.size(); ++bytes) {
    const LedgerContents torn = parse_ledger(std::string_view(whole).substr(0, bytes));
    REQUIRE(torn.damaged.empty());
    REQUIRE(torn.torn == (bytes > 0 && whole[bytes - 1] != '\n'));
    REQUIRE(torn.segments.size() ==
            static_cast<size_t>(std::count(whole.begin(), whole.begin() + bytes, '\n')));
  }
  for (size_t bytes = last_line; bytes < whole.size(); bytes += 7) {
    fs::remove_all(job.run() + ".saved");
    fs::copy(job.run(), job.run() + ".saved");
    fs::resize_file(path, bytes);
    {
      const OpenedStore opened = job.open();
      REQUIRE(opened.store->num_answered() == 11);  // the segment itself is sound
      REQUIRE_THAT(opened.notices[0], ContainsSubstring("is not named by the ledger"));
    }
    REQUIRE(read_file(path) == whole);
    fs::remove_all(job.run());
    fs::rename(job.run() + ".saved", job.run());
  }
}

TEST_CASE("a flipped bit in the ledger costs nothing, in a segment one answer or its head, and is named",
          "[store]") {
  const StoreJob job;
  job.answer_and_seal(0, 6);
  job.answer_and_seal(6, 11);
  const auto segments = parse_ledger(read_file(job.run() + "/ledger")).segments;
  REQUIRE(segments.size() >= 2);
  const SegmentRecord& first = segments.front();
  REQUIRE(first.rows > 1);
  const std::string file = GENERATE("ledger", "segment-000001");
  const uint64_t bytes = fs::file_size(job.run() + "/" + file);
  const uint64_t first_line = read_file(job.run() + "/ledger").find('\n');
  for (uint64_t byte = 0; byte < (file == "ledger" ? first_line : bytes); byte += 13) {
    INFO(file << " byte " << byte);
    fs::remove_all(job.run() + ".saved");
    fs::copy(job.run(), job.run() + ".saved");
    std::string data = read_file(job.run() + "/" + file);
    data[byte] = static_cast<char>(data[byte] ^ 4);
    write_file_durably(job.run() + "/" + file, {data});
    const uint64_t marks = kSegmentMagic.size() + kRunIdBytes, count = sizeof(uint64_t);
    const uint64_t lost = file == "ledger" ? 0 : byte < marks ? first.rows : byte < marks + count ? 0 : 1;
    {
      const OpenedStore opened = job.open();
      CHECK(opened.store->num_answered() == 11 - lost);
      REQUIRE(opened.notices.size() >= 2);
      CHECK_THAT(opened.notices[0], ContainsSubstring(file == "ledger" ? "line 1 of" : "segment-000001"));
    }
    CHECK(job.open().notices.size() == 1);  // it was mended for good
    fs::remove_all(job.run());
    fs::rename(job.run() + ".saved", job.run());
  }
}

TEST_CASE("a segment that is cut short or gone is named", "[store]") {
  const StoreJob job;
  job.answer_and_seal(0, 11);
  const std::string segment = job.run() + "/segment-000001";
  const uint64_t rows = parse_ledger(read_file(job.run() + "/ledger")).segments.front().rows;
  uint64_t lost = rows;
  SECTION("cut short") {
    fs::resize_file(segment, fs::file_size(segment) - 1);
    lost = 1;
  }
  SECTION("gone") { fs::remove(segment); }
  const OpenedStore opened = job.open();
  REQUIRE(opened.notices.size() == 2);
  CHECK_THAT(opened.notices[0], ContainsSubstring("segment-000001"));
  CHECK(opened.store->num_answered() == 11 - lost);
}

TEST_CASE("damage between the start and the merge is found, and the job goes on after it", "[store]") {
  const StoreJob job;
  {
    OpenedStore opened = job.open();
    for (uint64_t row = 0; row < job.num_rows; ++row) opened.store->append(answer_to(row));
    opened.store->seal();
    const std::string path = job.run() + "/segment-000002";
    std::string data = read_file(path);
    data.back() ^= 1;
    write_file_durably(path, {data});
    CHECK_THROWS_WITH(opened.store->finish(), ContainsSubstring("segment-000002"));
  }
  CHECK_FALSE(fs::exists(job.job.output.path));
  CHECK(job.go() > 0);
  const StoreJob other;
  other.go();
  CHECK(contents(job) == contents(other));
}

TEST_CASE("a run whose directory is removed starts anew", "[store]") {
  const StoreJob job;
  job.answer_and_seal(0, 11);
  fs::remove_all(job.run());
  CHECK(job.go() == 40);
}

TEST_CASE("a limit on file size stops the job as a full disk does", "[store]") {
  const SmallJob job;
  const auto answer = [&](volatile uint64_t& acknowledged) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {.rlim_cur = 400, .rlim_max = RLIM_INFINITY};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    answer_all(job, acknowledged);
  };
  const FaultyRun run = run_on_faulty_disk(job.directory.path(), Fault::none, 0, answer);
  CHECK(run.exit_code == static_cast<int>(ExitCode::stopped));
  CHECK_THAT(run.message, ContainsSubstring("File too large"));
  CHECK(job.go() == 12);
}
