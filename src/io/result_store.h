#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "io/result_hdf5.h"
#include "io/run_directory.h"
#include "moerun/io.h"

namespace moerun {

/// When answers are sealed, and how the final file is packed. The defaults are for jobs; tests seal sooner.
struct StoreLimits {
  uint64_t seal_bytes = 16u << 20;  ///< a segment is sealed when it holds this much
  double seal_seconds = 5;          ///< or when the last seal is this old
};

/// A store, or word that the job is finished already.
struct OpenedStore {
  std::unique_ptr<ResultStore> store;  ///< null when an earlier run finished this very job
  FinishedOutput finished;             ///< what that run's output says of itself
  /// The run directory, locked. After ResultStore::finish() it stays until the reports that the job asks for
  /// are written (RunDirectory::keep_report, remove), so that a death before that is seen by the next run:
  /// then it comes with a finished output. None: no report is owed.
  std::shared_ptr<RunDirectory> directory;
  std::vector<std::string> notices;  ///< whole sentences for the user: resumed, discarded, damaged, finished

  bool already_finished() const { return store == nullptr; }
};

/// Opens the store of `job`'s output: starts anew, resumes from the run directory OUTPUT.run/, or finds the
/// output finished.
///
/// An output or run directory of another job is refused, naming each entry of `fingerprint` that differs;
/// `fresh` discards what is there instead and says what that was. `openai`: the input was OpenAI batch lines,
/// so the JSONL output is batch response lines.
///
/// The run directory is locked until the store is gone (a dead process keeps no lock). Throws BadInput for
/// what the user must decide (another job's output, a running job, no such directory) and Error with
/// ExitCode::stopped when the disk is full. Thread contract: as ResultStore; writing and fsync happen on a
/// thread of the store's own, which calls neither MPI nor HDF5.
OpenedStore open_result_store(const Job& job, const Fingerprint& fingerprint, const Provenance& provenance,
                              uint64_t num_rows, bool openai, bool fresh, const StoreLimits& limits = {});

}  // namespace moerun
