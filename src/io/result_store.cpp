#include "io/result_store.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "io/durable_file.h"
#include "io/fingerprint.h"
#include "io/ledger.h"
#include "io/merge.h"
#include "io/openai_line.h"
#include "io/result_hdf5.h"
#include "io/result_jsonl.h"
#include "io/row_set.h"
#include "io/run_directory.h"
#include "io/seal_thread.h"

namespace moerun {

namespace fs = std::filesystem;

namespace {

using Clock = std::chrono::steady_clock;

std::string iso_time(int64_t seconds) {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(static_cast<std::time_t>(seconds)));
}

fs::path temporary_name(const fs::path& path) { return path.string() + ".tmp"; }

/// Makes room on a full disk, also where HDF5 holds the file open. Its failure is not the one that counts.
void give_back(const fs::path& path) {
  std::error_code ignored;
  fs::resize_file(path, 0, ignored);
  fs::remove(path, ignored);
}

/// The files of a job's output.
struct OutputFiles {
  fs::path hdf5;
  fs::path jsonl;  // empty: none

  bool finished() const { return fs::exists(hdf5); }
  fs::path run_directory() const { return run_directory_of(hdf5); }
};

/// What an earlier process of this run left.
struct EarlierRun {
  explicit EarlierRun(uint64_t num_rows) : answered(num_rows) {}

  std::vector<SegmentRecord> segments;
  RowSet answered;
  RowTraits traits;
};

/// A run that goes on: what is known when its directory is open.
struct Run {
  OutputFiles files;
  RunDirectory directory;
  Manifest manifest;
  EarlierRun earlier;
};

class SegmentStore : public ResultStore {
 public:
  SegmentStore(Run&& run, const Provenance& provenance, const std::optional<OpenAiLines>& openai,
               const StoreLimits& limits)
      : run_(std::move(run)),
        provenance_(provenance),
        openai_(openai),
        limits_(limits),
        num_answered_before_(run_.earlier.answered.size()),
        answered_(run_.earlier.answered),
        row_errors_(run_.earlier.traits.row_errors) {
    // Strays were removed, so the numbers after the ledger's are free.
    uint64_t next = 1;
    for (const SegmentRecord& segment : run_.earlier.segments)
      next = std::max<uint64_t>(
          next, std::strtoull(segment.name.c_str() + segment.name.rfind('-') + 1, nullptr, 10) + 1);
    sealer_.emplace(SealThread::Run{.directory = run_.directory.path(),
                                    .ledger = run_.directory.ledger(),
                                    .run_id = run_.manifest.run_id,
                                    .next_number = next});
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
  void write_outputs(const std::vector<SegmentRecord>& segments) const;

  Run run_;
  const Provenance provenance_;
  const std::optional<OpenAiLines> openai_;
  const StoreLimits limits_;
  const uint64_t num_answered_before_;
  RowSet answered_;
  uint64_t row_errors_;
  SegmentBuilder segment_;  // not sealed yet
  Clock::time_point last_seal_ = Clock::now();
  std::optional<SealThread> sealer_;
};

void SegmentStore::write_outputs(const std::vector<SegmentRecord>& segments) const {
  RowTraits traits;
  for (const SegmentRecord& segment : segments) traits.add(segment.traits);
  const bool with_jsonl = !run_.files.jsonl.empty();
  const uint64_t num_rows = answered_.num_rows();

  Hdf5Results columns(temporary_name(run_.files.hdf5), traits, num_rows);
  std::optional<JsonlResults> lines;
  if (with_jsonl) lines.emplace(temporary_name(run_.files.jsonl));
  SegmentMerge merge(run_.directory.path(), segments, run_.manifest.run_id);
  uint64_t rows = 0;
  for (RowResult result; merge.next(result); ++rows) {
    if (result.row != rows)
      throw Error(fmt::format("the segments in {} hold row {} where row {} belongs",
                              run_.directory.path().string(), result.row, rows));
    columns.append(result);
    if (!lines) continue;
    if (openai_)
      append_openai_line(result, *openai_, lines->line());
    else
      append_result_line(result, lines->line());
    lines->end_line();
  }
  if (rows != num_rows)
    throw Error(
        fmt::format("the segments in {} hold {} of {} rows", run_.directory.path().string(), rows, num_rows));
  columns.finish({.provenance = provenance_,
                  .fingerprint = to_json(run_.manifest.fingerprint).dump(),
                  .start = iso_time(run_.manifest.created),
                  .end = iso_time(std::time(nullptr)),
                  .num_rows = num_rows,
                  .num_row_errors = traits.row_errors});
  const fs::path hdf5 = temporary_name(run_.files.hdf5);
  sync_file(open_file(hdf5, O_RDONLY).get(), hdf5);
  if (lines) lines->finish();
}

void SegmentStore::finish() {
  seal();
  if (answered_.size() != answered_.num_rows())
    throw Error(fmt::format("{} of {} rows are answered: the output cannot be written yet", answered_.size(),
                            answered_.num_rows()));
  std::vector<SegmentRecord> segments = run_.earlier.segments;
  segments.insert(segments.end(), sealer_->sealed().begin(), sealer_->sealed().end());
  const OutputFiles& files = run_.files;
  try {
    write_outputs(segments);
  } catch (...) {
    give_back(temporary_name(files.hdf5));
    if (!files.jsonl.empty()) give_back(temporary_name(files.jsonl));
    throw;
  }
  // The HDF5 file comes last: where it has its name, the job is finished, and the run directory is rubbish.
  if (!files.jsonl.empty()) rename_durably(temporary_name(files.jsonl), files.jsonl);
  rename_durably(temporary_name(files.hdf5), files.hdf5);
  sealer_.reset();
  run_.directory.remove();
}

std::string joined(const std::vector<std::string>& sentences) {
  return fmt::format("{}", fmt::join(sentences, "; "));
}

/// Throws BadInput unless the finished output is this job's.
uint64_t check_finished(const OutputFiles& files, const Fingerprint& fingerprint) {
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
  if (!files.jsonl.empty() && !fs::exists(files.jsonl))
    throw BadInput(
        fmt::format("{} is finished, but {} is not there: leave output.jsonl out, or run the job again "
                    "with --fresh",
                    files.hdf5.string(), files.jsonl.string()));
  return output.num_row_errors;
}

/// Removes what an earlier job left under this job's names, and says what that was.
void discard(const OutputFiles& files, const RunDirectory& directory, std::vector<std::string>& notices) {
  for (const fs::path& path : {files.hdf5, files.jsonl})
    if (!path.empty() && remove_file(path)) {
      sync_directory(directory_of(path));
      notices.push_back(fmt::format("Discarded the finished output {}.", path.string()));
    }
  uint64_t rows = 0;
  if (fs::exists(directory.path() / "manifest.json") && fs::exists(directory.ledger()))
    for (const SegmentRecord& segment : parse_ledger(read_file(directory.ledger())).segments)
      rows += segment.rows;
  if (rows > 0)
    notices.push_back(fmt::format("Discarded {} sealed answers in {}.", rows, directory.path().string()));
  directory.clear();
}

/// Reads the ledger and every segment; drops what is damaged, and writes a ledger of what is left.
EarlierRun read_earlier(const RunDirectory& directory, const Manifest& manifest,
                        std::vector<std::string>& notices) {
  EarlierRun earlier(manifest.num_rows);
  const bool has_ledger = fs::exists(directory.ledger());
  const LedgerContents ledger = has_ledger ? parse_ledger(read_file(directory.ledger())) : LedgerContents{};
  for (const uint64_t line : ledger.damaged)
    notices.push_back(fmt::format("Line {} of {} is damaged: its rows are answered again.", line,
                                  directory.ledger().string()));
  for (const SegmentRecord& segment : ledger.segments) {
    try {
      const auto entries = verify_segment(directory.path(), segment, manifest.run_id);
      for (const SegmentEntry& entry : entries)
        if (entry.row >= manifest.num_rows || earlier.answered.contains(entry.row))
          throw Error(fmt::format("{} holds row {}, which is answered already or not in the input",
                                  (directory.path() / segment.name).string(), entry.row));
      for (const SegmentEntry& entry : entries) earlier.answered.insert(entry.row);
      earlier.traits.add(segment.traits);
      earlier.segments.push_back(segment);
    } catch (const Error& error) {
      notices.push_back(
          fmt::format("Damaged: {}: its {} rows are answered again.", error.what(), segment.rows));
    }
  }
  const bool whole = has_ledger && !ledger.torn && ledger.damaged.empty() &&
                     earlier.segments.size() == ledger.segments.size();
  if (!whole) write_ledger(directory.ledger(), earlier.segments);
  directory.remove_strays(earlier.segments);
  return earlier;
}

Run open_run(const OutputFiles& files, RunDirectory&& directory, const Fingerprint& fingerprint,
             uint64_t num_rows, std::vector<std::string>& notices) {
  std::optional<Manifest> manifest = directory.read_manifest();
  if (!manifest) {
    if (!files.jsonl.empty() && fs::exists(files.jsonl)) {
      directory.remove();
      throw BadInput(
          fmt::format("{} exists and is no output of this job: move it away, name another output.jsonl, "
                      "or discard it with --fresh",
                      files.jsonl.string()));
    }
    directory.clear();
    manifest = Manifest{.run_id = new_run_id(),
                        .created = std::time(nullptr),
                        .num_rows = num_rows,
                        .fingerprint = fingerprint};
    write_ledger(directory.ledger(), {});
    directory.write_manifest(*manifest);
    return {files, std::move(directory), *manifest, EarlierRun(num_rows)};
  }
  std::vector<std::string> differs = differences(manifest->fingerprint, fingerprint);
  if (manifest->num_rows != num_rows)
    differs.push_back(fmt::format("the input had {} rows and now has {}", manifest->num_rows, num_rows));
  if (!differs.empty())
    throw BadInput(
        fmt::format("{} holds the answers of another job: {}; name another output.path, or discard them "
                    "with --fresh",
                    directory.path().string(), joined(differs)));
  EarlierRun earlier = read_earlier(directory, *manifest, notices);
  notices.push_back(fmt::format("Resuming {}: {} of {} rows are answered.", directory.path().string(),
                                earlier.answered.size(), num_rows));
  return {files, std::move(directory), *manifest, std::move(earlier)};
}

void check_directories(const OutputFiles& files) {
  for (const fs::path& path : {files.hdf5, files.jsonl}) {
    if (path.empty()) continue;
    const fs::path directory = directory_of(path);
    if (!fs::is_directory(directory))
      throw BadInput(
          fmt::format("{} cannot be written: {} is no directory", path.string(), directory.string()));
    if (fs::is_directory(path))
      throw BadInput(fmt::format("{} cannot be written: it is a directory", path.string()));
  }
}

}  // namespace

OpenedStore open_result_store(const Job& job, const Fingerprint& fingerprint, const Provenance& provenance,
                              uint64_t num_rows, bool openai, bool fresh, const StoreLimits& limits) {
  const OutputFiles files = {.hdf5 = job.output.path, .jsonl = job.output.jsonl};
  if (files.hdf5.empty()) throw BadInput("the job has no output.path");
  check_directories(files);

  OpenedStore opened;
  const auto already_finished = [&] {
    opened.num_row_errors = check_finished(files, fingerprint);
    opened.notices.push_back(fmt::format("{} is finished already: nothing to do.", files.hdf5.string()));
  };
  // A finished output in a place that is read-only by now is still finished: make nothing there.
  if (!fresh && files.finished() && !fs::exists(files.run_directory())) {
    already_finished();
    return opened;
  }
  RunDirectory directory(files.run_directory());
  if (!directory.locked())
    opened.notices.push_back(
        fmt::format("{} is on a file system without locks: see to it that no two jobs write "
                    "this output at once.",
                    directory.path().string()));
  if (fresh) {
    discard(files, directory, opened.notices);
  } else if (files.finished()) {
    // The job ended between naming its output and removing the directory; or the output is another's.
    already_finished();
    directory.remove();
    return opened;
  }
  // No job but this one, which holds the lock, has use for these.
  remove_file(temporary_name(files.hdf5));
  if (!files.jsonl.empty()) remove_file(temporary_name(files.jsonl));
  Run run = open_run(files, std::move(directory), fingerprint, num_rows, opened.notices);
  std::optional<OpenAiLines> openai_lines;
  if (openai) {
    openai_lines = OpenAiLines{.model = job.model.path, .created = run.manifest.created};
    if (fs::exists(job.model.path + "/tokenizer.json"))
      openai_lines->tokenizer = std::make_shared<const Tokenizer>(Tokenizer::load(job.model.path));
  }
  opened.store = std::make_unique<SegmentStore>(std::move(run), provenance, openai_lines, limits);
  return opened;
}

}  // namespace moerun
