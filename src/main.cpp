#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <optional>

#include "base/version.h"
#include "comm/launched_tasks.h"
#include "comm/mpi_env.h"
#include "fault/signals.h"
#include "fault/watchdog.h"
#include "io/hdf5_child_main.h"
#include "job/help_command.h"
#include "moerun/error.h"
#include "run/check_command.h"
#include "run/quantize_command.h"
#include "run/run_job.h"
#include "run/watch_commands.h"
#include "text/tokenize_command.h"

namespace {

using namespace moerun;

/// The command line, parsed.
struct Command {
  enum class Kind { run, check, tokenize, quantize, status, results, help } kind = Kind::run;
  RunOptions run;
  CheckOptions check;
  std::string model_dir;
  std::string out_dir;  ///< of `quantize`
  std::string output;   ///< of `status` and `results`
  std::string topic;    ///< of `help`
  bool render = false;
};

/// Usage names the commands, which are words in the job file's place.
class Help : public CLI::Formatter {
 public:
  std::string make_usage(const CLI::App*, std::string) const override {
    return "\nUsage:\n" + usage_text() + "\n";
  }
};

void add_job_arguments(CLI::App& app, RunOptions& run) {
  app.add_option("job", run.job_path, "job file (YAML)")->required()->type_name("JOB.yaml");
  app.add_option("overrides", run.overrides, "overrides of the job's keys")->type_name("KEY=VALUE");
}

void add_check_options(CLI::App& app, CheckOptions& check) {
  app.add_option("--ranks", check.num_ranks, "as if this many ranks were started")
      ->check(CLI::PositiveNumber);
  app.add_option("--gpu", check.gpu, "plan for GPUs with this memory: H100, H200, or a number of GiB")
      ->type_name("NAME|GiB");
  app.add_option("--measured", check.measured_path,
                 "times of the exchange to print beside the cost model: what jobs/eight-gpus.sh or "
                 "exchange_bench --json wrote")
      ->type_name("FILE");
}

/// Returns the exit code when there is nothing more to do (--help, a mistake).
std::optional<int> parse(int argc, char** argv, Command& command) {
  using Kind = Command::Kind;
  const std::string word = argc > 1 ? argv[1] : "";
  CLI::App app("moerun: runs a Mixture-of-Experts language model over prompt files as an MPI batch job");
  app.formatter(std::make_shared<Help>());
  app.footer(help_footer());
  app.set_version_flag("--version", fmt::format("moerun {} ({})", version(), git_revision()));
  if (word == "check") {
    command.kind = Kind::check;
    add_check_options(app, command.check);
    add_job_arguments(app, command.run);
  } else if (word == "tokenize") {
    command.kind = Kind::tokenize;
    app.add_flag(
        "--render", command.render,
        "print what the chat template makes of each line's messages: {\"text\"} or {\"error\"} a line");
    app.add_option("model", command.model_dir, "model folder")->required()->type_name("MODEL_DIR");
  } else if (word == "quantize") {
    command.kind = Kind::quantize;
    app.add_option("in", command.model_dir, "model folder in 16 or 32 bits")->required()->type_name("IN");
    app.add_option("out", command.out_dir, "folder to be made, in block-scaled FP8")
        ->required()
        ->type_name("OUT");
  } else if (word == "status" || word == "results") {
    command.kind = word == "status" ? Kind::status : Kind::results;
    app.add_option("output", command.output, "a job's output.path, or its run directory OUTPUT.run")
        ->required()
        ->type_name("OUTPUT");
  } else if (word == "help") {
    command.kind = Kind::help;
    app.add_option("topic", command.topic,
                   "keys, keys-markdown (as docs/job-keys.md has it), or man (the manual page)")
        ->type_name("TOPIC");
  } else {
    app.add_flag("--fresh", command.run.fresh, "discard what an earlier run left, and start over");
    add_job_arguments(app, command.run);
  }
  const int skipped = command.kind == Kind::run ? 0 : 1;
  try {
    app.parse(argc - skipped, argv + skipped);
    if (command.kind == Kind::help && command.topic.empty()) throw CLI::CallForHelp();
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : static_cast<int>(ExitCode::bad_input);
  }
  command.run.command = fmt::format("{}", fmt::join(argv, argv + argc, " "));
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
    MpiEnv env(&argc, &argv);
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
        return check_main(command.run, command.check);
      case Command::Kind::tokenize:
        return command.render ? render_main(command.model_dir, std::cin, std::cout)
                              : tokenize_main(command.model_dir, std::cin, std::cout);
      case Command::Kind::quantize:
        return quantize_main(command.model_dir, command.out_dir);
      case Command::Kind::status:
        return status_main(command.output);
      case Command::Kind::results:
        return results_main(command.output);
      case Command::Kind::help:
        fmt::print("{}", help_text(command.topic, version()));
        return static_cast<int>(ExitCode::ok);
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
