#include "job/job_file.h"

#include "tests/fuzz/harness.h"

namespace moerun::fuzz {

namespace {

/// What rank 0 reads is what it sends, and what the others make of that.
void check_round_trip(const Job& job) {
  check(parse_job(job.yaml, "the job").yaml == job.yaml, "a job read back from its own YAML is the same job");
}

}  // namespace

/// A job's YAML.
void read_job_file(std::string_view bytes) { check_round_trip(parse_job(std::string(bytes), "job.yaml")); }

/// Overrides of the command line, one a line, over a small job.
void read_overrides(std::string_view bytes) {
  std::vector<std::string> overrides;
  while (!bytes.empty()) overrides.emplace_back(take_until(bytes, '\n'));
  check_round_trip(parse_job("model: {path: m}\ninput: {path: in.jsonl}\noutput: {path: out.h5}\n",
                             "job.yaml", overrides));
}

}  // namespace moerun::fuzz
