#include "plan/sequence_limit.h"

#include "tests/catch.h"

using namespace moerun;

TEST_CASE("sequence limit: a number is meant, auto on a GPU leaves room to grow", "[run]") {
  Job job;
  for (const auto device : {Job::DeviceKind::cpu, Job::DeviceKind::cuda, Job::DeviceKind::null}) {
    job.device = device;
    job.scheduler.max_num_seqs = 0;
    const SequenceLimit automatic = sequence_limit(job);
    CHECK(automatic.of_any_length > 0);
    if (device == Job::DeviceKind::cuda)
      CHECK(automatic.most > automatic.of_any_length);
    else
      CHECK(automatic.most == automatic.of_any_length);
    for (const int given : {1, 300, 5000}) {
      job.scheduler.max_num_seqs = given;
      CHECK(sequence_limit(job).most == given);
      CHECK(sequence_limit(job).of_any_length == given);
    }
  }
}
