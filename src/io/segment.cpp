#include "io/segment.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "io/durable_file.h"
#include "text/checksum.h"

namespace moerun {

namespace fs = std::filesystem;

static_assert(std::endian::native == std::endian::little, "segments are written as they lie in memory");

namespace {

constexpr uint64_t kHeaderBytes = kSegmentHeaderBytes;
static_assert(kHeaderBytes == kSegmentMagic.size() + kRunIdBytes + sizeof(uint64_t));

std::string header_and_entries(const std::string& run_id, const std::vector<SegmentEntry>& entries) {
  std::string out(kSegmentMagic);
  out += run_id;
  const uint64_t num_rows = entries.size();
  out.append(reinterpret_cast<const char*>(&num_rows), sizeof num_rows);
  if (!entries.empty())
    out.append(reinterpret_cast<const char*>(entries.data()), entries.size() * sizeof(SegmentEntry));
  return out;
}

}  // namespace

void check_answer(const SegmentEntry& entry, std::string_view packed, const fs::path& path) {
  if (crc32_of(packed) != entry.crc32)
    throw Error(
        fmt::format("the answer to row {} in {} does not have its checksum", entry.row, path.string()));
}

uint32_t crc32_of(std::string_view bytes) {
  return static_cast<uint32_t>(::crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

void RowTraits::add(const RowResult& result) {
  row_errors += result.finish_reason == FinishReason::error;
  num_top_logprobs = std::max(num_top_logprobs, result.num_top_logprobs);
  num_prompt_top_logprobs = std::max(num_prompt_top_logprobs, result.num_prompt_top_logprobs);
  logprobs |= !result.logprobs.empty();
  prompt_logprobs |= !result.prompt_logprobs.empty();
  prompt_is_greedy |= !result.prompt_is_greedy.empty();
  several_answers |= !result.more_answers.empty();
  prompt_truncated |= result.prompt_truncated >= 0;
  num_answers += 1 + result.more_answers.size();
  for (const Answer& answer : result.more_answers) logprobs |= !answer.logprobs.empty();
}

void RowTraits::add(const RowTraits& others) {
  row_errors += others.row_errors;
  num_top_logprobs = std::max(num_top_logprobs, others.num_top_logprobs);
  num_prompt_top_logprobs = std::max(num_prompt_top_logprobs, others.num_prompt_top_logprobs);
  logprobs |= others.logprobs;
  prompt_logprobs |= others.prompt_logprobs;
  prompt_is_greedy |= others.prompt_is_greedy;
  several_answers |= others.several_answers;
  prompt_truncated |= others.prompt_truncated;
  num_answers += others.num_answers;
}

void SegmentBuilder::append(const RowResult& result) {
  check_result(result);
  const size_t begin = payload_.size();
  pack_row(result, payload_);
  const std::string_view packed = std::string_view(payload_).substr(begin);
  if (packed.size() > kMostAnswerBytes)
    throw Error(fmt::format("the answer to row {} is larger than {} bytes", result.row, kMostAnswerBytes));
  entries_.push_back({.row = result.row,
                      .offset = begin,
                      .bytes = static_cast<uint32_t>(packed.size()),
                      .crc32 = crc32_of(packed)});
  traits_.add(result);
}

SegmentRecord SegmentBuilder::write(const Directory& directory, const std::string& name,
                                    const std::string& run_id) const {
  std::vector<SegmentEntry> entries = entries_;
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.row < b.row; });
  const uint64_t payload_begin = kHeaderBytes + entries.size() * sizeof(SegmentEntry);
  for (SegmentEntry& entry : entries) entry.offset += payload_begin;
  const std::string head = header_and_entries(run_id, entries);
  directory.write_durably(name, {head, payload_});
  return {.name = name,
          .bytes = head.size() + payload_.size(),
          .rows = entries.size(),
          .first_row = entries.empty() ? 0 : entries.front().row,
          .last_row = entries.empty() ? 0 : entries.back().row,
          .sha256 = sha256_hex(head),
          .traits = traits_};
}

std::vector<SegmentEntry> read_segment_entries(const Directory& directory, const SegmentRecord& record,
                                               const std::string& run_id) {
  const fs::path path = directory.path_of(record.name);
  const FileDescriptor file = directory.open(record.name);
  struct stat status = {};
  if (::fstat(file.get(), &status) != 0) throw FileError("look at", path, errno);
  if (static_cast<uint64_t>(status.st_size) != record.bytes)
    throw Error(
        fmt::format("{} has {} bytes where the ledger says {}", path.string(), status.st_size, record.bytes));
  if (record.rows > (record.bytes - std::min<uint64_t>(record.bytes, kHeaderBytes)) / sizeof(SegmentEntry))
    throw Error(
        fmt::format("{} is too small for the {} rows that the ledger says", path.string(), record.rows));
  std::string head(kHeaderBytes + record.rows * sizeof(SegmentEntry), '\0');
  read_at(file.get(), head.data(), head.size(), 0, path);
  if (sha256_hex(head) != record.sha256)
    throw Error(fmt::format("the head of {} does not have the ledger's checksum", path.string()));
  if (!head.starts_with(kSegmentMagic) || head.compare(kSegmentMagic.size(), kRunIdBytes, run_id) != 0)
    throw Error(fmt::format("{} is not a segment of run {}", path.string(), run_id));
  std::vector<SegmentEntry> entries(record.rows);
  if (!entries.empty())
    std::memcpy(entries.data(), head.data() + kHeaderBytes, entries.size() * sizeof(SegmentEntry));
  return entries;
}

}  // namespace moerun
