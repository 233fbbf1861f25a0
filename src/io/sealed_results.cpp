#include "io/sealed_results.h"

#include <fmt/format.h>

#include <optional>
#include <string_view>

#include "io/hdf5_child.h"
#include "io/ledger.h"
#include "io/merge.h"
#include "io/result_lines.h"
#include "moerun/error.h"
#include "moerun/file_names.h"

namespace moerun {

namespace fs = std::filesystem;

namespace {

Manifest manifest_in(const Directory& files) {
  if (std::optional<Manifest> manifest = read_manifest_of(files)) return *std::move(manifest);
  throw BadInput(fmt::format("{} holds no run: it has no {}", files.path().string(), kManifestName));
}

}  // namespace

SealedRun::SealedRun(const fs::path& run_directory)
    : files_(run_directory, Directory::Links::followed), manifest_(manifest_in(files_)) {
  if (!files_.has(kLedgerName)) return;  // nothing is sealed, or it was lost: the run itself says so
  segments_ = parse_ledger(files_.read(kLedgerName, kMostLedgerBytes)).segments;
  for (const SegmentRecord& segment : segments_) {
    num_sealed_ += segment.rows;
    num_row_errors_ += segment.traits.row_errors;
  }
}

DamagedAnswers SealedRun::each_line(const std::function<void(std::string_view)>& take) const {
  constexpr size_t kMostTold = 10;
  DamagedAnswers passed_over;
  const LineWriter lines(manifest_);
  SegmentMerge merge(files_, segments_, manifest_.run_id, [&](const Error& damage, uint64_t num_rows) {
    if (!files_.has(kManifestName)) return false;  // the run is gone
    passed_over.num_rows += num_rows;
    if (passed_over.what.size() < kMostTold) passed_over.what.emplace_back(damage.what());
    return true;
  });
  std::string line;
  LineRows whole;
  std::optional<uint64_t> last;
  for (RowResult result; merge.next(result);) {
    // A run that was damaged may have sealed a row again, with the same bits.
    if (last == result.row) continue;
    last = result.row;
    if (!whole.add(std::move(result))) continue;
    line.clear();
    lines.append(whole.rows(), line);
    line += '\n';
    take(line);
  }
  return passed_over;
}

FinishedOutput finished_output(const fs::path& output) { return read_finished_output(output); }

fs::path run_directory_named(const fs::path& named) {
  std::error_code ignored;
  const fs::path directory = named.string().ends_with(kRunDirectorySuffix) ? named : run_directory_of(named);
  return fs::is_directory(directory, ignored) ? directory : fs::path();
}

fs::path output_named(const fs::path& named) {
  const std::string text = named.string();
  if (!text.ends_with(kRunDirectorySuffix)) return named;
  return text.substr(0, text.size() - std::string_view(kRunDirectorySuffix).size());
}

}  // namespace moerun
