#include "run/watch_commands.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string_view>

#include "io/durable_file.h"
#include "io/sealed_results.h"
#include "moerun/error.h"
#include "report/live_status.h"
#include "report/progress_line.h"

namespace moerun {

namespace fs = std::filesystem;

namespace {

double seconds_since(double unix_seconds) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::max(std::chrono::duration<double>(now).count() - unix_seconds, 0.0);
}

/// Of a file system without locks a status that is this old is a dead job's.
constexpr double kSilent_s = 60;

/// What is said of a job while it is not finished.
struct Unfinished {
  std::optional<std::string> holder;  // none: it does not run
  std::optional<JobStatus> status;    // none: it has not come so far
  std::string no_locks;               // why it is not known whether it runs
};

Unfinished look_at(const Directory& files) {
  Unfinished found;
  if (files.has(kStatusName)) try {
      found.status = parse_status(files.read(kStatusName, kMostStatusBytes));
    } catch (const Error&) {  // a power cut may leave half of it: the ledger is what counts
    }
  try {
    found.holder = holder_of_run(files);
  } catch (const FileError& error) {
    if (error.os_error() == ENOENT) return found;  // the lock went with the run
    found.no_locks = error.what();
    if (found.status && found.status->phase != "ended" && seconds_since(found.status->updated) < kSilent_s)
      found.holder = found.status->process;
  }
  // What the run before the one that runs has left says nothing of this one.
  if (found.holder && found.status && found.status->process != *found.holder) found.status.reset();
  return found;
}

void print_line(const char* what, const std::string& text) { fmt::print("{:<12} {}\n", what, text); }

std::string share(uint64_t part, uint64_t whole) {
  return whole == 0
             ? ""
             : fmt::format(" ({:.1f}%)", 100.0 * static_cast<double>(part) / static_cast<double>(whole));
}

/// What "lately" is, in seconds.
constexpr double kLately_s = 60;

std::string lately(const JobSeries& series, JobSeries::Column column, double span_s) {
  return with_commas(static_cast<uint64_t>(series.lately_per_s(column, span_s)));
}

std::string load_text(const GroupLoad& load) {
  const auto used = static_cast<uint64_t>(load.blocks_used), blocks = static_cast<uint64_t>(load.num_blocks);
  return fmt::format("{} sequences running, {} waiting, {} of {} key/value blocks in use{}",
                     with_commas(static_cast<uint64_t>(load.running)),
                     with_commas(static_cast<uint64_t>(load.waiting)), with_commas(used), with_commas(blocks),
                     share(used, blocks));
}

/// All groups together, and each where they are few.
void print_groups(const JobProgress& progress) {
  constexpr size_t kMostGroups = 16;
  const size_t count = progress.groups.size();
  if (count > 1)
    print_line("all groups", load_text({.running = progress.running,
                                        .waiting = progress.waiting,
                                        .blocks_used = progress.blocks_used,
                                        .num_blocks = progress.num_blocks}));
  if (count > kMostGroups) return;
  for (size_t i = 0; i < count; ++i) {
    const JobProgress::Group& group = progress.groups[i];
    print_line(fmt::format("group {}", i).c_str(),
               fmt::format("{}, step {}; said {} before the update", load_text(group),
                           with_commas(static_cast<uint64_t>(group.steps)),
                           clock_text(std::max(progress.seconds - group.reported_s, 0.0))));
  }
}

void print_progress(const JobStatus& status, bool runs) {
  const JobProgress& progress = status.progress;
  const double seconds = std::max(progress.seconds, 1e-3);
  const auto rate = [&](uint64_t count) { return static_cast<double>(count) / seconds; };
  if (progress.seconds > 0)
    print_line("rate",
               fmt::format("{:.2f} rows/s, {} output tokens/s, {} prompt tokens/s over {} of this run",
                           rate(progress.answered_now),
                           with_commas(static_cast<uint64_t>(rate(progress.output_tokens))),
                           with_commas(static_cast<uint64_t>(rate(progress.prompt_tokens))),
                           clock_text(progress.seconds)));
  if (const auto left = progress.seconds_left(); left && runs)
    print_line("time left", fmt::format("{}{}, by that rate", progress.answered_now > 0 ? "" : "at most ",
                                        clock_text(*left)));
  if (const double span = std::min(kLately_s, progress.seconds); span > 0 && runs)
    print_line("lately",
               fmt::format("{} output tokens/s, {} prompt tokens/s over the last {} of it",
                           lately(progress.series, JobSeries::output_tokens, span),
                           lately(progress.series, JobSeries::prompt_tokens, span), clock_text(span)));
  print_groups(progress);
  print_line("updated",
             fmt::format("{} ago, by {}", clock_text(seconds_since(status.updated)), status.process));
}

int print_unfinished(const SealedRun& run, const fs::path& output) {
  const Unfinished found = look_at(run.files());
  const bool runs = found.holder.has_value();
  const uint64_t rows = run.manifest().num_rows, sealed = run.num_sealed();
  print_line("output", output.string());
  if (found.holder)
    print_line("state",
               fmt::format("{}: {}", found.status ? found.status->phase : "starting", *found.holder));
  else
    print_line("state", found.status && found.status->phase == "ended"
                            ? "not running: it stopped, and the same command goes on with the rest"
                            : "not running: it died, and the same command goes on with the rest");
  if (!found.no_locks.empty())
    print_line("note", found.no_locks + ": the state is a guess by its last update");
  const uint64_t answered =
      runs && found.status ? std::max(found.status->progress.num_answered, sealed) : sealed;
  print_line("rows", fmt::format("{} of {}{} answered, {} of them sealed, {} of those with an error",
                                 with_commas(answered), with_commas(rows), share(answered, rows),
                                 with_commas(sealed), with_commas(run.num_row_errors())));
  if (found.status) print_progress(*found.status, runs);
  return static_cast<int>(runs ? ExitCode::running : ExitCode::stopped);
}

int print_finished(const fs::path& output) {
  const FinishedOutput finished = finished_output(output);
  print_line("output", output.string());
  print_line("state", fmt::format("finished: from {} to {}", finished.start, finished.end));
  print_line("rows", fmt::format("{} answered, {} of them with an error", with_commas(finished.num_rows),
                                 with_commas(finished.num_row_errors)));
  print_line("layout", finished.layout);
  print_line("program", fmt::format("moerun {} ({})", finished.program_version, finished.git_revision));
  return static_cast<int>(finished.num_row_errors > 0 ? ExitCode::row_errors : ExitCode::ok);
}

/// Whether the directory holds a run: after the answers are merged one may stay that owes a report.
bool holds_run(const fs::path& directory) {
  return !directory.empty() && Directory(directory, Directory::Links::followed).has(kManifestName);
}

}  // namespace

int status_main(const std::string& output) {
  const fs::path named = output_named(output), directory = run_directory_named(output);
  if (holds_run(directory)) try {
      return print_unfinished(SealedRun(directory), named);
    } catch (const FileError& error) {
      // It was finished between two looks.
      if (error.os_error() != ENOENT || !fs::exists(named)) throw;
    }
  if (fs::exists(named)) return print_finished(named);
  throw BadInput(fmt::format("there is no job: neither {} nor {} is there; give a job's output.path",
                             named.string(), run_directory_of(named).string()));
}

int results_main(const std::string& output) {
  const fs::path named = output_named(output), directory = run_directory_named(output);
  if (!holds_run(directory)) {
    if (fs::exists(named))
      throw BadInput(fmt::format("{} is finished: its answers are there, and in the job's output.jsonl",
                                 named.string()));
    throw BadInput(fmt::format("there is no run: {} is not there", run_directory_of(named).string()));
  }
  const SealedRun run(directory);
  const DamagedAnswers passed_over = run.each_line([](std::string_view line) {
    if (std::fwrite(line.data(), 1, line.size(), stdout) != line.size())
      throw FileError("write", "standard output", errno);
  });
  if (std::fflush(stdout) != 0) throw FileError("write", "standard output", errno);
  if (passed_over.num_rows == 0) return static_cast<int>(ExitCode::ok);
  for (const std::string& what : passed_over.what) fmt::print(stderr, "moerun: {}\n", what);
  fmt::print(
      stderr,
      "moerun: {} sealed answers are damaged and were passed over; the job's command answers them again\n",
      with_commas(passed_over.num_rows));
  return static_cast<int>(ExitCode::row_errors);
}

}  // namespace moerun
