#pragma once
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "coordinator/coordinator.h"
#include "io/directory.h"

namespace moerun {

/// How a job stood when it last said so: the run directory's status.json, for `moerun status`.
struct JobStatus {
  JobProgress progress;
  std::string phase;    ///< "loading", "running", "merging", "ended"
  std::string process;  ///< "process 12 on HOST"
  double updated = 0;   ///< seconds since 1970
};

std::string status_json(const JobStatus& status);
/// Throws Error where the text is no status.
JobStatus parse_status(std::string_view json);

/// What the runs of a job before this one have said of how they went over time; nothing where they left no
/// status, or a damaged one. Before LiveStatus writes another.
JobSeries series_of_earlier_runs(const Directory& files);

/// The most that a status.json may have.
inline constexpr uint64_t kMostStatusBytes = 16 << 20;

/// The same in the text format of Prometheus (version 0.0.4), for the textfile collector of a node exporter.
/// `output` becomes a label of each metric; `exit_code`: of a job that ended so that it is known.
std::string status_prometheus(const JobStatus& status, const std::string& output,
                              std::optional<int> exit_code = std::nullopt);

/// Writes both every few seconds while a job runs. What cannot be written is no reason to end a job: a line
/// on stderr says so, once. Thread contract: any; one call at a time has its way.
class LiveStatus {
 public:
  struct Places {
    std::filesystem::path run_directory;
    std::string prometheus;  ///< empty: not asked for
    std::string output;      ///< of the job
  };
  /// `begin`: the rows of the job, and those that earlier runs answered.
  LiveStatus(Places places, const JobProgress& begin);

  /// Cheap to call often.
  void update(const JobProgress& progress);
  /// The answers are being merged.
  void merging();
  /// No more rows are in work: what `end` writes has these numbers.
  void served(const JobProgress& progress);
  /// The job ends, once: by a fault where there is no exit code yet. `complete`: its run directory holds no
  /// run any more.
  void end(std::optional<int> exit_code, bool complete);

 private:
  void write(const char* phase, std::optional<int> exit_code, bool to_directory);
  template <class Write>
  void try_to(Write write);

  using Clock = std::chrono::steady_clock;
  Places places_;
  std::mutex mutex_;
  JobProgress progress_;
  std::string process_;
  Clock::time_point due_;
  bool complained_ = false, ended_ = false;
};

}  // namespace moerun
