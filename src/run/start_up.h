#pragma once
#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <string>

#include "comm/mpi_env.h"
#include "io/input.h"
#include "io/result_store.h"
#include "moerun/error.h"
#include "plan/run_plan.h"

namespace moerun {

/// What the command line says about a run.
struct RunOptions {
  std::string job_path;
  std::vector<std::string> overrides;
  bool fresh = false;   ///< discard what an earlier run left
  std::string command;  ///< as it was typed, to tell how to type it
};

/// The plan of a job after every check that needs no rank.
struct CheckedJob : RunPlan {
  InputSummary input;
  std::time_t start = 0;                   ///< the job's, for chat templates that ask for the date
  std::string tokenizer_checksum;          ///< empty: the folder has no tokenizer
  std::string texts_checksum;              ///< ModelTexts::checksum()
  std::string sampling_defaults = "none";  ///< what generation_config.json gave, in words
  std::string weights_checksum;  ///< empty: none are read, or they are not yet (model.verify_weights: full)
};

/// Checks all there is to check before anything loads, and plans what runs. `job.device` is decided. Throws
/// BadInput with all faults. Needs no GPU and no other rank. `job_path`: the job's own file.
CheckedJob check_job(Job job, const Machine& machine, const std::string& job_path);

/// What every rank knows when the job starts.
struct Start : RunPlan {
  std::time_t start = 0;         ///< CheckedJob::start
  std::string texts_checksum;    ///< CheckedJob::texts_checksum
  std::string weights_state;     ///< state_of_files() here, from before they were read; empty: none are read
  std::optional<int> exit_code;  ///< set: there is nothing to run, and the user was told why
};

/// What rank 0 has beside that: the coordinator's input and store.
struct LeadFiles {
  std::unique_ptr<RecordSource> source;
  std::unique_ptr<ResultStore> store;
  std::shared_ptr<RunDirectory> directory;  ///< the store's
  bool order_rows = false;                  ///< rows are put in an order in which those that begin alike meet
};

/// Rank 0 reads and checks the job, opens input and store and tells the others. Faults are printed by rank 0
/// and become everybody's exit code. Collective over world.
Start start_up(const MpiEnv& env, const RunOptions& options, LeadFiles& files);

/// What an error that ends the job says to the user: also how to go on, where the same command does.
std::string last_words(const Error& error);

/// "tensor 2 × data 2 × replicas 1 on 4 ranks, experts over 4".
std::string layout_text(const Layout& layout);

/// UTC as ISO 8601.
std::string time_text();

}  // namespace moerun
