#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <iostream>
#include <optional>

#include "comm/launched_tasks.h"
#include "comm/mpi_env.h"
#include "fault/signals.h"
#include "fault/watchdog.h"
#include "io/hdf5_child.h"
#include "moerun/error.h"
#include "run/check_command.h"
#include "run/run_job.h"
#include "text/tokenize_command.h"
#include "version.h"

namespace {

using namespace moerun;

/// The command line, parsed.
struct Command {
  enum class Kind { run, check, tokenize } kind = Kind::run;
  RunOptions run;
  int num_ranks = 0;          ///< `check --ranks`; 0: what the layout says
  std::string measured_path;  ///< `check --measured`; empty: none
  std::string model_dir;
};

constexpr const char* kFooter =
    "key=value overrides a key of the job: parallel.tensor=4, sampling.temperature=0.7, "
    "output.path=out/b.h5\n"
    "Exit codes: 0 every row answered, 2 bad job or input (nothing ran), 3 finished with errors in some "
    "rows,\n"
    "75 stopped early (the same command resumes), 1 a fault (the same command resumes).";

void add_job_arguments(CLI::App& app, RunOptions& run) {
  app.add_option("job", run.job_path, "job file (YAML)")->required()->type_name("JOB.yaml");
  app.add_option("overrides", run.overrides, "overrides of the job's keys")->type_name("key=value");
}

/// Returns the exit code when there is nothing more to do (--help, a mistake).
std::optional<int> parse(int argc, char** argv, Command& command) {
  // `check` and `tokenize` are words in the job file's place.
  const std::string word = argc > 1 ? argv[1] : "";
  CLI::App app(
      "moerun: runs a Mixture-of-Experts language model over prompt files as an MPI batch job\n"
      "  mpirun -n RANKS moerun JOB.yaml [key=value ...]   run, or resume, a job: one rank a GPU\n"
      "  moerun check [--ranks N] [--measured FILE] JOB.yaml [key=value ...]\n"
      "                                                    every check that needs no GPU, then what would "
      "run\n"
      "  moerun tokenize MODEL_DIR < lines.jsonl           {\"text\"|\"messages\"} a line in, {\"ids\"} a "
      "line out");
  app.footer(kFooter);
  app.set_version_flag("--version", fmt::format("moerun {} ({})", version(), git_revision()));
  if (word == "check") {
    command.kind = Command::Kind::check;
    app.add_option("--ranks", command.num_ranks, "as if this many ranks were started")
        ->check(CLI::PositiveNumber);
    app.add_option("--measured", command.measured_path,
                   "times of the exchange to print beside the cost model: what jobs/eight-gpus.sh or "
                   "exchange_bench --json wrote")
        ->type_name("FILE");
    add_job_arguments(app, command.run);
  } else if (word == "tokenize") {
    command.kind = Command::Kind::tokenize;
    app.add_option("model", command.model_dir, "model folder")->required()->type_name("MODEL_DIR");
  } else {
    app.add_flag("--fresh", command.run.fresh, "discard what an earlier run left, and start over");
    add_job_arguments(app, command.run);
  }
  const int skipped = command.kind == Command::Kind::run ? 0 : 1;
  try {
    app.parse(argc - skipped, argv + skipped);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : static_cast<int>(ExitCode::bad_input);
  }
  return std::nullopt;
}

void check_tasks(std::optional<int> world_size) {
  if (const std::string wrong = unjoined_tasks(world_size, std::getenv); !wrong.empty())
    throw BadInput(wrong);
}

int run(int argc, char** argv, const RunOptions& options) {
  StopSignals signals;  // before MPI starts threads
  std::optional<Watchdog> watchdog;
  int code = 0;
  {
    check_tasks(std::nullopt);
    const MpiEnv env(&argc, &argv);
    check_tasks(env.size());
    code = run_job(env, options, signals, watchdog);
  }
  if (watchdog) watchdog->close();  // MPI_Finalize was watched as well
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  if (const auto code = hdf5_child_main(argc, argv)) return *code;
  try {
    Command command;
    if (const auto code = parse(argc, argv, command)) return *code;
    switch (command.kind) {
      case Command::Kind::check:
        return check_main(command.run, command.num_ranks, command.measured_path);
      case Command::Kind::tokenize:
        return tokenize_main(command.model_dir, std::cin, std::cout);
      case Command::Kind::run:
        return run(argc, argv, command.run);
    }
  } catch (const Error& error) {
    fmt::print(stderr, "moerun: {}\n", error.what());
    return static_cast<int>(error.code());
  } catch (const std::exception& error) {
    fmt::print(stderr, "moerun: {}\n", error.what());
  }
  return static_cast<int>(ExitCode::fault);
}
