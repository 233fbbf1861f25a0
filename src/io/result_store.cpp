#include "io/result_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <ctime>
#include <deque>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/time_text.h"
#include "io/durable_file.h"
#include "io/earlier_run.h"
#include "io/fingerprint.h"
#include "io/hdf5_child.h"
#include "io/ledger.h"
#include "io/merge.h"
#include "io/output_files.h"
#include "io/result_hdf5.h"
#include "io/result_jsonl.h"
#include "io/result_lines.h"
#include "io/run_directory.h"
#include "io/seal_thread.h"

namespace moerun {

namespace fs = std::filesystem;

namespace {

using Clock = std::chrono::steady_clock;

/// A run that goes on: what is known when its directory is open.
struct Run {
  OutputFiles files;
  std::shared_ptr<RunDirectory> directory;
  Manifest manifest;
  EarlierRun earlier;
};

class SegmentStore : public ResultStore {
 public:
  SegmentStore(Run&& run, const Provenance& provenance, const LineWriter& lines, const StoreLimits& limits,
               bool reports_follow)
      : run_(std::move(run)),
        provenance_(provenance),
        lines_(lines),
        limits_(limits),
        reports_follow_(reports_follow),
        num_answered_before_(run_.earlier.answered.size()),
        answered_(run_.earlier.answered),
        row_errors_(run_.earlier.traits.row_errors) {
    sealer_.emplace(SealThread::Run{.directory = &run_.directory->files(),
                                    .run_id = run_.manifest.run_id,
                                    .next_number = run_.earlier.next_number});
  }

  uint64_t num_answered() const override { return num_answered_before_; }
  bool answered(uint64_t row) const override { return answered_.contains(row); }
  uint64_t num_row_errors() const override { return row_errors_; }

  void append(RowResult&& result) override {
    if (result.row >= answered_.num_rows())
      throw Error(
          fmt::format("row {} was answered, and the input has {} rows", result.row, answered_.num_rows()));
    if (!answered_.insert(result.row)) throw Error(fmt::format("row {} was answered twice", result.row));
    row_errors_ += result.finish_reason == FinishReason::error;
    segment_.append(result);
    if (segment_.bytes() >= limits_.seal_bytes) submit();
  }

  void seal_if_due() override {
    sealer_->check();
    const std::chrono::duration<double> age = Clock::now() - last_seal_;
    if (segment_.bytes() >= limits_.seal_bytes || age.count() >= limits_.seal_seconds) submit();
  }

  void seal() override {
    if (!sealer_) return;  // a fault after finish(): all is safe
    submit();
    sealer_->wait();
  }

  void finish() override;

 private:
  void submit() {
    last_seal_ = Clock::now();
    if (segment_.empty()) return;
    sealer_->submit(std::exchange(segment_, SegmentBuilder()));
  }
  std::vector<WrittenFile> write_outputs(const std::vector<SegmentRecord>& segments) const;
  void name_outputs(const std::vector<WrittenFile>& lines) const;

  Run run_;
  const Provenance provenance_;
  const LineWriter lines_;
  const StoreLimits limits_;
  const bool reports_follow_;
  const uint64_t num_answered_before_;
  RowSet answered_;
  uint64_t row_errors_;
  SegmentBuilder segment_;  // not sealed yet
  Clock::time_point last_seal_ = Clock::now();
  std::optional<SealThread> sealer_;
};

/// Merges into files under temporary names, and reads them back. Returns what the files of lines hold.
std::vector<WrittenFile> SegmentStore::write_outputs(const std::vector<SegmentRecord>& segments) const {
  RowTraits traits;
  for (const SegmentRecord& segment : segments) traits.add(segment.traits);
  const OutputFiles& files = run_.files;
  const uint64_t num_rows = answered_.num_rows();
  const fs::path hdf5 = temporary_name(files.hdf5);

  Hdf5Results columns(hdf5, traits, num_rows, provenance_.routed);
  std::deque<JsonlResults> lines;
  for (const OutputFiles::Lines& one : files.lines()) lines.emplace_back(temporary_name(one.path));
  SegmentMerge merge(run_.directory->files(), segments, run_.manifest.run_id);
  uint64_t rows = 0;
  LineRows whole;
  for (RowResult result; merge.next(result); ++rows) {
    if (result.row != rows)
      throw Error(fmt::format("the segments in {} hold row {} where row {} belongs",
                              run_.directory->path().string(), result.row, rows));
    columns.append(result);
    if (lines.empty() || !whole.add(std::move(result))) continue;
    JsonlResults& to = whole.has_error() ? lines.back() : lines.front();
    lines_.append(whole.rows(), to.line());
    to.end_line();
  }
  if (rows != num_rows)
    throw Error(fmt::format("the segments in {} hold {} of {} rows", run_.directory->path().string(), rows,
                            num_rows));
  const WrittenResults written = columns.finish({.provenance = provenance_,
                                                 .fingerprint = to_json(run_.manifest.fingerprint).dump(),
                                                 .start = time_text_of(run_.manifest.created),
                                                 .end = time_text_of(std::time(nullptr)),
                                                 .num_rows = num_rows,
                                                 .num_row_errors = traits.row_errors});
  sync_file(open_file(hdf5, O_RDONLY | O_NOFOLLOW).get(), hdf5);
  read_back(hdf5, written);
  std::vector<WrittenFile> written_lines;
  for (size_t i = 0; const OutputFiles::Lines& one : files.lines()) {
    written_lines.push_back(lines[i++].finish());
    const fs::path temporary = temporary_name(one.path);
    if (look_at_output(temporary) != written_lines.back())
      throw Error(fmt::format("{} does not read back as it was written", temporary.string()),
                  ExitCode::stopped);
  }
  return written_lines;
}

void SegmentStore::name_outputs(const std::vector<WrittenFile>& lines) const {
  run_.files.check_names_free();
  for (size_t i = 0; const OutputFiles::Lines& one : run_.files.lines()) {
    run_.directory->write_lines_record(one.record, lines[i++]);
    name_output(one.path);
  }
  name_output(run_.files.hdf5);
}

void SegmentStore::finish() {
  seal();
  if (answered_.size() != answered_.num_rows())
    throw Error(fmt::format("{} of {} rows are answered: the output cannot be written yet", answered_.size(),
                            answered_.num_rows()));
  std::vector<SegmentRecord> segments = run_.earlier.segments;
  segments.insert(segments.end(), sealer_->sealed().begin(), sealer_->sealed().end());
  try {
    name_outputs(write_outputs(segments));
  } catch (...) {
    run_.files.give_back_temporaries();
    throw;
  }
  // The output is whole and has its name for good: the run directory is rubbish, but that it says whether the
  // reports are written.
  sealer_.reset();
  if (reports_follow_)
    run_.directory->clear_answers();
  else
    run_.directory->remove();
}

std::string joined(const std::vector<std::string>& sentences) {
  return fmt::format("{}", fmt::join(sentences, "; "));
}

/// Throws BadInput unless the finished output is this job's.
FinishedOutput check_finished(const OutputFiles& files, const Fingerprint& fingerprint) {
  FinishedOutput output;
  Fingerprint before;
  try {
    output = read_finished_output(files.hdf5);
    before = fingerprint_from_json(nlohmann::ordered_json::parse(output.fingerprint));
  } catch (const std::exception& error) {
    throw BadInput(
        fmt::format("{} exists and is no finished output of moerun ({}): move it away, name another "
                    "output.path, or discard it with --fresh",
                    files.hdf5.string(), error.what()));
  }
  if (const auto differs = differences(before, fingerprint); !differs.empty())
    throw BadInput(
        fmt::format("{} is the finished output of another job: {}; name another output.path, or "
                    "discard it with --fresh",
                    files.hdf5.string(), joined(differs)));
  for (const OutputFiles::Lines& one : files.lines())
    if (!fs::exists(one.path))
      throw BadInput(
          fmt::format("{} is finished, but {} is not there: leave {} out, or run the job again with --fresh",
                      files.hdf5.string(), one.path.string(),
                      one.path == files.jsonl ? "output.jsonl" : "output.errors"));
  return output;
}

/// Removes what an earlier job left under this job's names, and says what that was.
void discard(const OutputFiles& files, const RunDirectory& directory, std::vector<std::string>& notices) {
  for (const fs::path& path : {files.hdf5, files.jsonl, files.errors})
    if (!path.empty() && remove_file(path)) {
      Directory(directory_of(path), Directory::Links::followed).sync();
      notices.push_back(fmt::format("Discarded the finished output {}.", path.string()));
    }
  uint64_t rows = 0;
  try {
    if (directory.files().has(kManifestName) && directory.files().has(kLedgerName))
      for (const SegmentRecord& segment :
           parse_ledger(directory.files().read(kLedgerName, kMostLedgerBytes)).segments)
        rows += segment.rows;
  } catch (const Error& error) {
    notices.push_back(fmt::format("{}: how many answers it named is not known.", error.what()));
  }
  if (rows > 0)
    notices.push_back(fmt::format("Discarded {} sealed answers in {}.", rows, directory.path().string()));
  directory.clear();
}

/// A file of lines under its final name without the HDF5 file is this run's own when a process of it died
/// between the names; it is merged again. Throws BadInput when it is another's.
void check_lines(const OutputFiles& files, const RunDirectory* directory) {
  for (const OutputFiles::Lines& one : files.lines()) {
    if (!fs::exists(one.path)) continue;
    const auto own = directory ? directory->read_lines_record(one.record) : std::nullopt;
    if (own && !is_link(one.path) && look_at_output(one.path) == *own) {
      remove_file(one.path);
      continue;
    }
    throw BadInput(
        directory
            ? fmt::format(
                  "{} exists and is no output of this job, whose answers are kept in {}: move it away",
                  one.path.string(), directory->path().string())
            : fmt::format("{} exists and is no output of this job: move it away, name another {}, or discard "
                          "it with --fresh",
                          one.path.string(), one.path == files.jsonl ? "output.jsonl" : "output.errors"));
  }
}

Run open_run(const OutputFiles& files, const std::shared_ptr<RunDirectory>& shared, const Manifest& begun,
             std::vector<std::string>& notices) {
  const uint64_t num_rows = begun.num_rows;
  const Fingerprint& fingerprint = begun.fingerprint;
  RunDirectory& directory = *shared;
  std::optional<Manifest> manifest = directory.read_manifest();
  if (!manifest) {
    try {
      check_lines(files, nullptr);
    } catch (const BadInput&) {
      directory.remove();
      throw;
    }
    for (const std::string& name : directory.files().names())
      if (segment_number(name)) {
        notices.push_back(
            fmt::format("Discarded the sealed answers in {}: there is no manifest.json that says "
                        "which job's they are.",
                        directory.path().string()));
        break;
      }
    directory.clear();
    manifest = begun;
    manifest->run_id = new_run_id();
    manifest->created = std::time(nullptr);
    write_ledger(directory.files(), {});
    directory.write_manifest(*manifest);
    return {files, shared, *manifest, EarlierRun(num_rows)};
  }
  std::vector<std::string> differs = differences(manifest->fingerprint, fingerprint);
  if (manifest->num_rows != num_rows)
    differs.push_back(fmt::format("the input had {} rows and now has {}", manifest->num_rows, num_rows));
  if (!differs.empty())
    throw BadInput(
        fmt::format("{} holds the answers of another job: {}; name another output.path, or discard them "
                    "with --fresh",
                    directory.path().string(), joined(differs)));
  check_lines(files, &directory);
  EarlierRun earlier = read_earlier_run(directory, *manifest, notices);
  notices.push_back(fmt::format("Resuming {}: {} of {} rows are answered.", directory.path().string(),
                                earlier.answered.size(), num_rows));
  return {files, shared, *manifest, std::move(earlier)};
}

}  // namespace

OpenedStore open_result_store(const Job& job, const Fingerprint& fingerprint, const Provenance& provenance,
                              uint64_t num_rows, bool openai, bool fresh, const StoreLimits& limits) {
  const OutputFiles files = {.hdf5 = job.output.path, .jsonl = job.output.jsonl, .errors = job.output.errors};
  if (files.hdf5.empty()) throw BadInput("the job has no output.path");
  files.check();
  if (fresh) files.check_no_links();

  OpenedStore opened;
  const auto already_finished = [&] {
    opened.finished = check_finished(files, fingerprint);
    opened.notices.push_back(fmt::format("{} is finished already: nothing to do.", files.hdf5.string()));
  };
  // A finished output in a place that is read-only by now is still finished: make nothing there.
  if (!fresh && files.finished() && !fs::exists(files.run_directory())) {
    already_finished();
    return opened;
  }
  const bool reports_follow = !job.report.path.empty() || !job.report.html.empty();
  opened.directory = std::make_shared<RunDirectory>(files.run_directory());
  RunDirectory& directory = *opened.directory;
  if (!directory.locked())
    opened.notices.push_back(
        fmt::format("{} is on a file system without locks: see to it that no two jobs write "
                    "this output at once.",
                    directory.path().string()));
  if (fresh) {
    discard(files, directory, opened.notices);
  } else if (files.finished()) {
    // The job ended between naming its output and removing the directory, or could not write its report; or
    // the output is another's.
    already_finished();
    // Whoever named the output may have died before its name was safe.
    for (const fs::path& path : files.all()) Directory(directory_of(path), Directory::Links::followed).sync();
    files.remove_temporaries();
    if (reports_follow) {
      directory.clear_answers();
    } else {
      directory.remove();
      opened.directory = nullptr;
    }
    return opened;
  }
  files.remove_temporaries();  // no job but this one, which holds the lock, has use for them
  const Manifest begun = {.num_rows = num_rows,
                          .fingerprint = fingerprint,
                          .openai = openai,
                          .model = job.model.path,
                          .system_fingerprint = system_fingerprint_of(provenance)};
  Run run = open_run(files, opened.directory, begun, opened.notices);
  if (run.manifest.system_fingerprint.empty()) {  // a run that an earlier program began
    run.manifest.openai = begun.openai;
    run.manifest.model = begun.model;
    run.manifest.system_fingerprint = begun.system_fingerprint;
  }
  const LineWriter lines(run.manifest);
  opened.store = std::make_unique<SegmentStore>(std::move(run), provenance, lines, limits, reports_follow);
  return opened;
}

}  // namespace moerun
