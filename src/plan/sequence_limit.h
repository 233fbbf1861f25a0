#pragma once
#include <cstdint>

#include "moerun/job.h"

namespace moerun {

/// How many sequences run at once in a group.
struct SequenceLimit {
  int32_t most = 0;
  int32_t of_any_length = 0;  ///< beyond these only such as the keys and values have room for until they end
};

/// Of a job whose device is decided. A number in the job is meant: it is both.
inline SequenceLimit sequence_limit(const Job& job) {
  if (job.scheduler.max_num_seqs > 0)
    return {.most = job.scheduler.max_num_seqs, .of_any_length = job.scheduler.max_num_seqs};
  if (job.device == Job::DeviceKind::cuda) return {.most = 1024, .of_any_length = 256};
  return {.most = 64, .of_any_length = 64};
}

}  // namespace moerun
