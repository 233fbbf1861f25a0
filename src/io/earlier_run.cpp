#include "io/earlier_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "io/ledger.h"
#include "io/segment_scan.h"

namespace moerun {

namespace {

/// A file that may be a segment of the run.
struct Candidate {
  std::string name;
  std::optional<SegmentRecord> said;  // by the ledger
  SegmentScan scan;
  // Sound answers that are not kept: to rows that the input does not have, that another answer is kept for,
  // and that are sealed with different answers.
  uint64_t foreign = 0, surplus = 0, conflicts = 0;

  uint64_t num_kept() const { return scan.num_sound - foreign - surplus - conflicts; }
  bool whole() const { return scan.damage.empty() && num_kept() == scan.num_sound; }
};

/// A row that is sealed more than once.
struct Repeated {
  std::vector<size_t> copies;  // the candidates that hold it, the first of which keeps it
  uint32_t bytes = 0, crc32 = 0;
  bool differs = false, kept = false;
};

class Recovery {
 public:
  Recovery(const RunDirectory& directory, const Manifest& manifest, std::vector<std::string>& notices)
      : directory_(directory),
        files_(directory.files()),
        manifest_(manifest),
        notices_(notices),
        earlier_(manifest.num_rows) {}

  EarlierRun run() {
    find_candidates();
    for (Candidate& candidate : candidates_) scan(candidate);
    if (!repeated_.empty()) resolve_repeated();
    for (size_t i = 0; i < candidates_.size(); ++i) keep(i);
    if (!ledger_whole_) write_ledger(files_, earlier_.segments);
    directory_.remove_strays(earlier_.segments);
    return std::move(earlier_);
  }

 private:
  template <typename Visit>
  SegmentScan scan_with(const Candidate& candidate, const Visit& visit) const {
    return scan_segment(files_, candidate.name, candidate.said ? &*candidate.said : nullptr, manifest_.run_id,
                        visit);
  }

  void find_candidates() {
    std::set<std::string> found;
    for (const SegmentRecord& segment : read_ledger().segments) {
      if (found.insert(segment.name).second)
        candidates_.push_back({.name = segment.name, .said = segment});
      else
        ledger_whole_ = false;  // a line that comes twice
    }
    for (const std::string& name : files_.names())
      if (segment_number(name) && found.insert(name).second) candidates_.push_back({.name = name});
    for (const Candidate& candidate : candidates_)
      earlier_.next_number = std::max(earlier_.next_number, *segment_number(candidate.name) + 1);
  }

  LedgerContents read_ledger() {
    LedgerContents ledger;
    try {
      if (files_.has(kLedgerName)) {
        ledger = parse_ledger(files_.read(kLedgerName, kMostLedgerBytes));
        ledger_whole_ = !ledger.torn && ledger.damaged.empty();
      } else {
        notices_.push_back(
            fmt::format("Damaged: {} is missing: the segments are read without it.", path_of(kLedgerName)));
      }
    } catch (const Error& error) {
      notices_.push_back(fmt::format("Damaged: {}: the segments are read without it.", error.what()));
    }
    for (const uint64_t line : ledger.damaged)
      notices_.push_back(fmt::format("Damaged: line {} of {}: the segments are read without it.", line,
                                     path_of(kLedgerName)));
    return ledger;
  }

  void scan(Candidate& candidate) {
    candidate.scan = scan_with(candidate, [&](const SegmentEntry& entry, std::string_view) {
      if (entry.row >= manifest_.num_rows)
        ++candidate.foreign;
      else if (!earlier_.answered.insert(entry.row))
        repeated_[entry.row];
    });
  }

  /// Looks at all answers to rows that have several.
  void resolve_repeated() {
    for (size_t i = 0; i < candidates_.size(); ++i)
      scan_with(candidates_[i], [&](const SegmentEntry& entry, std::string_view) {
        const auto at = repeated_.find(entry.row);
        if (at == repeated_.end()) return;
        Repeated& row = at->second;
        if (row.copies.empty()) row.bytes = entry.bytes, row.crc32 = entry.crc32;
        row.differs |= entry.bytes != row.bytes || entry.crc32 != row.crc32;
        row.copies.push_back(i);
      });
    for (const auto& [row, repeated] : repeated_) {
      if (repeated.differs) earlier_.answered.erase(row);
      for (size_t copy = 0; copy < repeated.copies.size(); ++copy) {
        Candidate& candidate = candidates_[repeated.copies[copy]];
        if (repeated.differs)
          ++candidate.conflicts;
        else
          candidate.surplus += copy > 0;
      }
    }
  }

  void keep(size_t index) {
    const Candidate& candidate = candidates_[index];
    report(candidate);
    ledger_whole_ &= candidate.whole() && candidate.said.has_value();
    if (candidate.whole()) return accept(candidate.scan.record);
    SegmentBuilder builder;
    scan_with(candidate, [&](const SegmentEntry& entry, std::string_view packed) {
      if (entry.row >= manifest_.num_rows) return;
      if (const auto at = repeated_.find(entry.row); at != repeated_.end()) {
        Repeated& row = at->second;
        if (row.differs || row.copies.front() != index || std::exchange(row.kept, true)) return;
      }
      builder.append(unpack_row(packed));
    });
    if (builder.num_rows() != candidate.num_kept())
      throw Error(fmt::format("{} changed while it was read", path_of(candidate.name)));
    if (!builder.empty())
      accept(builder.write(files_, segment_name(earlier_.next_number++), manifest_.run_id));
  }

  void accept(const SegmentRecord& segment) {
    earlier_.traits.add(segment.traits);
    earlier_.segments.push_back(segment);
  }

  void report(const Candidate& candidate) {
    const auto say = [&]<typename... Values>(fmt::format_string<Values...> form, Values&&... values) {
      notices_.push_back(fmt::format(form, std::forward<Values>(values)...));
    };
    const uint64_t kept = candidate.num_kept(), there = candidate.said ? candidate.said->rows : 0;
    if (!candidate.scan.damage.empty())
      say("Damaged: {}: {} of its answers are kept, and {} rows are answered again.", candidate.scan.damage,
          kept, std::max(there, candidate.scan.num_sound) - candidate.scan.num_sound);
    else if (!candidate.said && kept > 0)
      say("{} is not named by the ledger, and is sound: its {} answers are kept.", path_of(candidate.name),
          kept);
    if (candidate.foreign > 0)
      say("{} holds answers to {} rows that the input does not have: they are dropped.",
          path_of(candidate.name), candidate.foreign);
    if (candidate.surplus > 0 && candidate.said)
      say("{} holds {} answers that are sealed already: one of each is kept.", path_of(candidate.name),
          candidate.surplus);
    if (candidate.conflicts > 0)
      say("{} holds {} answers to rows that are sealed with other answers too: none is kept, and the rows "
          "are "
          "answered again.",
          path_of(candidate.name), candidate.conflicts);
  }

  std::string path_of(const std::string& name) const { return files_.path_of(name).string(); }

  const RunDirectory& directory_;
  const Directory& files_;
  const Manifest& manifest_;
  std::vector<std::string>& notices_;
  EarlierRun earlier_;
  bool ledger_whole_ = false;
  std::vector<Candidate> candidates_;
  std::map<uint64_t, Repeated> repeated_;
};

}  // namespace

EarlierRun read_earlier_run(const RunDirectory& directory, const Manifest& manifest,
                            std::vector<std::string>& notices) {
  return Recovery(directory, manifest, notices).run();
}

}  // namespace moerun
