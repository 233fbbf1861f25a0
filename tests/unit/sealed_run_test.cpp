// A run as it is seen from outside, and how a job says that it stands.
#include <filesystem>
#include <sstream>

#include "io/sealed_results.h"
#include "moerun/file_names.h"
#include "report/live_status.h"
#include "store_fixture.h"
#include "tests/catch.h"

using namespace moerun;
namespace fs = std::filesystem;

namespace {

std::string lines_of(const SealedRun& run) {
  std::string out;
  run.each_line([&](std::string_view line) { out += line; });
  return out;
}

JobProgress progress() {
  JobProgress out{.num_rows = 9, .num_answered = 5, .answered_now = 3, .row_errors = 1};
  out.prompt_tokens = 1000;
  out.output_tokens = 60;
  out.handed_out = 6;
  out.most_output_tokens = 120;
  out.seconds = 12.5;
  out.groups.resize(2);
  out.groups[1].running = 3;
  out.groups[1].blocks_used = 7;
  out.groups[1].num_blocks = 64;
  out.groups[1].reported_s = 11;
  return out;
}

}  // namespace

TEST_CASE("sealed answers are read beside the job that seals them, and are those of its output", "[store]") {
  const StoreJob job;
  CHECK_THROWS_AS(SealedRun(job.run()), Error);
  const OpenedStore opened = job.open();
  CHECK(lines_of(SealedRun(job.run())).empty());
  for (const uint64_t row : {uint64_t{30}, uint64_t{2}, uint64_t{10}}) opened.store->append(answer_to(row));
  opened.store->seal();
  for (const uint64_t row : {uint64_t{3}, uint64_t{1}}) opened.store->append(answer_to(row));
  opened.store->seal();
  const SealedRun run(job.run());
  CHECK(run.num_sealed() == 5);
  CHECK(run.num_row_errors() == 1);
  CHECK(run.manifest().num_rows == 40);
  const std::string lines = lines_of(run);
  for (uint64_t row = 0; row < job.num_rows; ++row)
    if (!opened.store->answered(row)) opened.store->append(answer_to(row));
  opened.store->finish();
  std::istringstream all(job.jsonl());
  std::string expected;
  for (std::string line; std::getline(all, line);)
    for (const char* row : {"1,", "2,", "3,", "10,", "30,"})
      if (line.starts_with(std::string("{\"row\": ") + row)) expected += line + "\n";
  CHECK(lines == expected);
  CHECK_THROWS_AS(run.each_line([](std::string_view) {}), Error);  // the run is gone
}

TEST_CASE("a ledger whose last line is torn, and a damaged segment", "[store]") {
  const StoreJob job;
  job.answer_and_seal(0, 8);
  const std::string lines = lines_of(SealedRun(job.run()));
  std::string ledger = read_file(job.run() + "/ledger");
  write_file_durably(job.run() + "/ledger",
                     {ledger, "0123"});  // as a job that is sealing leaves it for a moment
  CHECK(lines_of(SealedRun(job.run())) == lines);
  const fs::path segment = job.run() + "/segment-000001";
  const std::string bytes = read_file(segment);
  const auto without = [&](size_t damaged_byte) {
    std::string damaged = bytes;
    damaged[damaged_byte] ^= 1;
    write_file_durably(segment, {damaged});
    std::string left;
    const SealedRun run(job.run());
    const DamagedAnswers passed = run.each_line([&](std::string_view line) { left += line; });
    CHECK(passed.num_rows > 0);
    CHECK_THAT(passed.what.at(0), ContainsSubstring("segment-000001"));
    return std::pair(passed.num_rows, left);
  };
  // The segment has the first four rows, in order; its head takes all of them with it.
  const size_t row_3 = lines.find("{\"row\": 3,"), row_4 = lines.find("{\"row\": 4,");
  const auto last = without(bytes.size() - 1), head = without(kSegmentHeaderBytes + 1);
  CHECK(last.first == 1);
  CHECK(last.second == lines.substr(0, row_3) + lines.substr(row_4));
  CHECK(head.first == 4);
  CHECK(head.second == lines.substr(row_4));
  write_file_durably(segment, {bytes.substr(0, bytes.size() - 1)});
  CHECK(SealedRun(job.run()).each_line([](std::string_view) {}).num_rows > 0);
  fs::remove(segment);
  CHECK(SealedRun(job.run()).each_line([](std::string_view) {}).num_rows == 4);
}

TEST_CASE("whether a job runs is seen by its lock, and looking takes it from nobody", "[store]") {
  const StoreJob job;
  job.answer_and_seal(0, 3);
  const Directory files(job.run(), Directory::Links::followed);
  CHECK_FALSE(holder_of_run(files));
  {
    const OpenedStore opened = job.open();
    REQUIRE(holder_of_run(files));
    CHECK(holder_of_run(files)->starts_with("process " + std::to_string(getpid()) + " on "));
    CHECK_THROWS_WITH(job.open(), ContainsSubstring("another job is writing this output"));
  }
  CHECK_FALSE(holder_of_run(files));
  CHECK(job.go() == 37);
}

TEST_CASE("how a job stands comes back as it was written", "[report]") {
  const JobStatus status{
      .progress = progress(), .phase = "running", .process = "process 1 on a", .updated = 2.5};
  const JobStatus again = parse_status(status_json(status));
  CHECK(status_json(again) == status_json(status));
  CHECK(again.progress.seconds_left() == status.progress.seconds_left());
  for (const char* text : {"", "{}", "[]", "{\"phase\": 1}", "{\"rows\": -1}"})
    CHECK_THROWS_AS(parse_status(text), Error);
  std::string more = status_json(status);
  more.replace(more.find("\"answered\": 5"), 13, "\"answered\": 10");
  CHECK_THROWS_AS(parse_status(more), Error);
}

TEST_CASE("metrics are in the text format of Prometheus", "[report]") {
  const JobStatus status{.progress = progress(), .phase = "running", .process = "p", .updated = 1.5};
  const std::string text = status_prometheus(status, "a \"b\"\\c\nd");
  CHECK(text.starts_with(kMetricsBegin));  // by which a job knows a file that it may replace
  CHECK_THAT(text, ContainsSubstring("# HELP moerun_rows Rows of the input.\n# TYPE moerun_rows gauge\n"
                                     "moerun_rows{output=\"a \\\"b\\\"\\\\c\\nd\"} 9\n"));
  CHECK_THAT(text, ContainsSubstring("\nmoerun_up{output=\"a \\\"b\\\"\\\\c\\nd\"} 1\n"));
  CHECK_THAT(text, ContainsSubstring(",group=\"1\"} 7\n") && ContainsSubstring("moerun_seconds_left{"));
  CHECK_THAT(text, !ContainsSubstring("exit_code"));
  const JobStatus ended{.progress = progress(), .phase = "ended", .process = "p", .updated = 1.5};
  CHECK_THAT(status_prometheus(ended, "a", 75),
             ContainsSubstring("moerun_up{output=\"a\"} 0\n") &&
                 ContainsSubstring("moerun_exit_code{output=\"a\"} 75\n") &&
                 !ContainsSubstring("seconds_left"));
  CHECK_THAT(status_prometheus(ended, "a"),
             ContainsSubstring("moerun_up{output=\"a\"} 0\n") && !ContainsSubstring("exit_code"));
}
