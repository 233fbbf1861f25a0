#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "moerun/job.h"
#include "moerun/model_config.h"

namespace moerun {

// Checks of a job that need no rank and load nothing. Every fault of a check goes into one BadInput, a line
// each. They leave nothing on disk.

/// What the job's paths must be: an input that can be read; outputs that differ from each other, in
/// directories that can be written to, or made. None may be what the job reads (the job's own file, the
/// input, a file of the model's folder), nor a name that is used on the way to another output, and a report
/// replaces a report alone. (read_model_config looks at the model's folder.) `job_path`: the job's file;
/// empty: it has none.
void check_paths(const Job& job, const std::string& job_path);

/// The directories of the job's outputs that are not there yet: a run makes them.
std::vector<std::string> missing_output_directories(const Job& job);

/// What the number of ranks and the model allow: the layout's products and divisions, the sequence length,
/// the token ids of `sampling.stop_token_ids`. `command`: that was typed to start the ranks, so that a fault
/// can say how to start as many as the layout needs; empty: nothing was started.
void check_layout(const Job& job, const ModelConfig& config, int world_size, const std::string& command);

/// Bytes that the answers take: at least, and when every one has `max_tokens`. Both count the sealed segments
/// and the merged file, which exist side by side. Rows' own sampling options are not looked at.
struct OutputEstimate {
  uint64_t least_hdf5 = 0, least_jsonl = 0;
  uint64_t most_hdf5 = 0, most_jsonl = 0;
};
/// `routed_bytes`: of a token's routed experts, 0 where they are not asked for; the prompts' tokens, whose
/// number is not known, are not counted.
OutputEstimate estimate_output(const Job& job, uint64_t num_rows, size_t routed_bytes);

/// Free room on the outputs' file systems against the estimate: less than the least is refused (BadInput),
/// less than the most gives warnings, which are returned. `sealed`: bytes that an earlier run of the job has
/// written of it, beside the output. `routed_bytes` as of estimate_output.
std::vector<std::string> check_disk(const Job& job, uint64_t num_rows, uint64_t sealed, size_t routed_bytes);

}  // namespace moerun
