#include "run/run_job.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <optional>

#include "coordinator/coordinator.h"
#include "moerun/error.h"
#include "moerun/wire.h"
#include "report/live_status.h"
#include "report/progress_line.h"
#include "report/report.h"
#include "run/rank.h"
#include "run/reports.h"
#include "text/model_texts.h"

namespace moerun {

namespace {

using Clock = std::chrono::steady_clock;

/// Ends the job with what was thrown.
[[noreturn]] void fail(Watchdog& watchdog, const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const Error& error) {
    watchdog.fail(last_words(error), static_cast<int>(error.code()));
  } catch (const std::exception& error) {
    watchdog.fail(error.what());
  }
}

/// Rank 0's coordinator with its progress line; while it lives, a fault seals what is finished.
class Lead {
 public:
  Lead(const Start& start, const LeadFiles& files, const Communicators& comms, StopSignals& signals,
       Watchdog& watchdog)
      : watchdog_(watchdog),
        line_(isatty(STDERR_FILENO) != 0),
        earlier_(series_of_earlier_runs(files.directory->files())),
        status_({.run_directory = files.directory->path(),
                 .prometheus = start.job.report.prometheus,
                 .output = start.job.output.path},
                {.num_rows = files.source->num_rows(),
                 .num_answered = files.store->num_answered(),
                 .series = earlier_}),
        texts_(files.order_rows && truncates_prompts(start.job) ? std::make_unique<Texts>(start) : nullptr),
        coordinator_({.control = comms.control,
                      .leaders = leaders_of(start.layout),
                      .source = files.source.get(),
                      .store = files.store.get(),
                      .order_in = files.order_rows ? std::optional(files.directory->path()) : std::nullopt,
                      .ids = texts_ ? &texts_->ids : nullptr,
                      .room = prompt_room_of(start.job),
                      .signals = &signals,
                      .earlier = earlier_,
                      .show =
                          [this](const JobProgress& progress) {
                            line_.update(progress);
                            status_.update(progress);
                          },
                      .merging = [this] { status_.merging(); },
                      .on_error = [this](const std::exception_ptr& thrown) { fail(watchdog_, thrown); }}) {
    watchdog.set_on_fault([this] {
      coordinator_.seal_for_fault();
      status_.end(std::nullopt, false);
    });
  }
  ~Lead() { watchdog_.set_on_fault(nullptr); }
  /// The job ends as the report says.
  void end(const JobReport& report) { status_.end(report.exit_code, report.outcome.complete); }
  Lead(const Lead&) = delete;
  Lead& operator=(const Lead&) = delete;

  JobOutcome join() {
    const Waiting waiting(&watchdog_.progress());
    JobOutcome outcome = coordinator_.join();
    line_.finish(outcome.progress);
    status_.served(outcome.progress);
    return outcome;
  }

 private:
  /// What the coordinator's thread makes ids of texts with.
  struct Texts {
    explicit Texts(const Start& start)
        : texts(ModelTexts::load_again(start.job.model.path, start.start, start.texts_checksum)),
          ids(texts.tokenizer ? &*texts.tokenizer : nullptr, &texts.chat_template) {}

    ModelTexts texts;
    PromptIds ids;
  };

  Watchdog& watchdog_;
  ProgressLine line_;
  const JobSeries earlier_;  // read before `status_` writes another
  LiveStatus status_;
  std::unique_ptr<Texts> texts_;
  Coordinator coordinator_;
};

ExitCode exit_code_of(const JobOutcome& outcome) {
  if (outcome.complete) return outcome.row_errors > 0 ? ExitCode::row_errors : ExitCode::ok;
  return outcome.stop.kind != Stop::none ? ExitCode::stopped : ExitCode::fault;
}

/// Rank 0's last words. Returns the exit code.
int conclude(JobReport& report, RunDirectory& directory) {
  ExitCode code = exit_code_of(report.outcome);
  const std::vector<std::string> foreign = foreign_gpu_processes(report);
  if (!foreign.empty()) code = ExitCode::fault;
  report.exit_code = static_cast<int>(code);
  fmt::print(stderr, "{}", report_text(report));
  for (const std::string& sentence : foreign) fmt::print(stderr, "moerun: {}\n", sentence);
  if (!report.outcome.complete)
    fmt::print(stderr,
               "moerun: stopped by {}: {} rows are sealed, and the same command goes on with the rest\n",
               report.outcome.stop.why, report.outcome.progress.num_answered);
  write_reports(report, directory);
  return report.exit_code;
}

}  // namespace

int run_job(MpiEnv& env, const RunOptions& options, StopSignals& signals, std::optional<Watchdog>& watchdog) {
  const auto began = Clock::now();
  JobReport report{.started = time_text()};
  watchdog.emplace(
      Watchdog::World{.rank = env.rank(),
                      .size = env.size(),
                      .hosts = env.hosts(),
                      .all_gather = [&](const std::string& mine) { return env.all_gather(mine); }},
      Watchdog::Options{.signals = &signals});
  env.set_progress(&watchdog->progress());
  try {
    LeadFiles files;
    const Start start = start_up(env, options, files);
    if (start.exit_code) return *start.exit_code;
    signals.set_limits(start.job.limits);
    const Communicators comms(env, start.layout);
    std::optional<Rank> rank;
    std::optional<Lead> lead;
    try {
      if (env.rank() == 0) lead.emplace(start, files, comms, signals, *watchdog);
      rank.emplace(env, start, comms, *watchdog);
      rank->run();
      watchdog->set_phase(Phase::merge);
      if (lead) report.outcome = lead->join();
      const Waiting waiting(&watchdog->progress());
      for (const std::string& bytes : env.gather(pack(rank->report())))
        report.ranks.push_back(unpack_rank_report(bytes));
      int code = 0;
      if (lead) {
        report.job = &start.job;
        report.layout = layout_text(start.layout);
        report.formats = formats_text(start);
        report.num_experts = start.config.num_experts;
        report.total_s = std::chrono::duration<double>(Clock::now() - began).count();
        report.ended = time_text();
        code = conclude(report, *files.directory);
        lead->end(report);
      }
      WireWriter told;
      told.put(code);
      WireReader(env.broadcast(told.take())).get(code);
      watchdog->set_phase(Phase::end);
      return code;
    } catch (...) {
      // Here, before anything goes: coordinator, graphs and communicators would wait for peers on their way.
      fail(*watchdog, std::current_exception());
    }
  } catch (...) {
    fail(*watchdog, std::current_exception());
  }
}

}  // namespace moerun
