#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "moerun/job.h"
#include "moerun/record.h"
#include "moerun/routed_shape.h"

namespace moerun {

/// The input as a stream of rows: memory does not grow with it. Thread contract: the coordinator thread alone
/// (after start-up checks).
class RecordSource {
 public:
  virtual ~RecordSource() = default;
  /// The next row in row order; false at the end. With `input.on_error: row` a bad row comes back with
  /// `error` set. Throws Error where the input is not what was checked.
  virtual bool next(PromptRecord& record) = 0;
  /// Goes on at `row` (rows before it were answered earlier).
  virtual void seek(uint64_t row) = 0;
  /// Rows in all, as the check before the run counted them.
  virtual uint64_t num_rows() const = 0;
};

/// What a run's files say about how it came to be; ends up in the output's root attributes.
struct Provenance {
  std::string job_yaml, program_version, git_revision, model_checksum, tokenizer_checksum;
  std::string weights_checksum;  ///< of every byte, "sampled:…" of some, "dummy", or empty
  std::string layout, device;
  std::string sampling_defaults;  ///< "none", or what generation_config.json gave: "model: temperature 0.7"
  RoutedShape routed;             ///< what rows bring of routers' choices
  uint64_t seed = 0;
};

/// What must be the same for a run to be resumed: names and values, so that a difference can be named.
/// Layout, device counts and batch sizes are not in it.
using Fingerprint = std::vector<std::pair<std::string, std::string>>;

/// Where answers go: sealed segments in a run directory beside the output, named by a ledger, merged at the
/// end (invariant 2). Thread contract: the coordinator thread alone.
class ResultStore {
 public:
  virtual ~ResultStore() = default;
  /// Rows that an earlier run sealed.
  virtual uint64_t num_answered() const = 0;
  virtual bool answered(uint64_t row) const = 0;
  /// Takes an answer; it is safe once it was sealed.
  virtual void append(RowResult&& result) = 0;
  /// Seals when enough has come together or the last seal is some seconds old; cheap to call often.
  virtual void seal_if_due() = 0;
  /// Seals what there is, whatever its size (signals, end of run). A full disk throws Error with
  /// ExitCode::stopped.
  virtual void seal() = 0;
  /// All rows are sealed: merges them into the final files in row order, under a temporary name, then
  /// renames; removes the run directory.
  virtual void finish() = 0;
  virtual uint64_t num_row_errors() const = 0;
};

}  // namespace moerun
