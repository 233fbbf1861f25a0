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

// The fixed part of a packed answer; the arrays follow in the order of their counts.
struct PackedRow {
  uint64_t row;
  int32_t prompt_length, num_top_logprobs;
  uint32_t finish_reason;
  uint16_t endpoint, id_kind;
  uint32_t num_token_ids, num_logprobs, num_top, num_prompt_logprobs;
  uint32_t id_bytes, error_bytes, text_bytes, model_bytes;
};
static_assert(sizeof(PackedRow) == 56);

// Behind the row's own arrays, where a row has something of it.
struct PackedMore {
  uint32_t num_prompt_is_greedy, num_answers;
  int32_t prompt_truncated, num_prompt_top_logprobs;
  uint32_t num_prompt_top, num_scored_tokens;
};
struct PackedAnswer {
  uint32_t finish_reason;
  uint32_t num_token_ids, num_logprobs, num_top, text_bytes;
};

struct PackedTop {
  int32_t token_id;
  float logprob;
};

template <typename T>
void put(std::string& out, const T* values, size_t count) {
  if (count) out.append(reinterpret_cast<const char*>(values), count * sizeof(T));
}

void put_top(std::string& out, const std::vector<std::pair<int32_t, float>>& entries) {
  for (const auto& [token_id, logprob] : entries) {
    const PackedTop top = {token_id, logprob};
    put(out, &top, 1);
  }
}

class Unpacker {
 public:
  explicit Unpacker(std::string_view bytes) : bytes_(bytes) {}

  template <typename T>
  void get(T* values, size_t count) {
    if (count > bytes_.size() / sizeof(T)) throw Error("a sealed answer is shorter than its header says");
    if (count) std::memcpy(values, bytes_.data(), count * sizeof(T));
    bytes_.remove_prefix(count * sizeof(T));
  }
  template <typename Container>
  void fill(Container& values, size_t count) {
    if (count > bytes_.size()) throw Error("a sealed answer is shorter than its header says");
    values.resize(count);
    get(values.data(), count);
  }
  void fill_top(std::vector<std::pair<int32_t, float>>& entries, size_t count) {
    std::vector<PackedTop> top;
    fill(top, count);
    entries.reserve(top.size());
    for (const PackedTop& entry : top) entries.emplace_back(entry.token_id, entry.logprob);
  }
  bool done() const { return bytes_.empty(); }

 private:
  std::string_view bytes_;
};

uint32_t count_of(const auto& values) { return static_cast<uint32_t>(values.size()); }

/// Whether a row has what few rows have; else the part is not written.
bool has_more(const RowResult& result) {
  return !result.prompt_is_greedy.empty() || !result.more_answers.empty() || result.prompt_truncated >= 0 ||
         result.num_prompt_top_logprobs != 0 || !result.prompt_top_logprobs.empty() ||
         !result.scored_tokens.empty();
}

void pack_more(const RowResult& result, std::string& out) {
  if (!has_more(result)) return;
  const PackedMore more = {.num_prompt_is_greedy = count_of(result.prompt_is_greedy),
                           .num_answers = count_of(result.more_answers),
                           .prompt_truncated = result.prompt_truncated,
                           .num_prompt_top_logprobs = result.num_prompt_top_logprobs,
                           .num_prompt_top = count_of(result.prompt_top_logprobs),
                           .num_scored_tokens = count_of(result.scored_tokens)};
  put(out, &more, 1);
  put(out, result.prompt_is_greedy.data(), result.prompt_is_greedy.size());
  put_top(out, result.prompt_top_logprobs);
  put(out, result.scored_tokens.data(), result.scored_tokens.size());
  for (const Answer& answer : result.more_answers) {
    const PackedAnswer head = {.finish_reason = static_cast<uint32_t>(answer.finish_reason),
                               .num_token_ids = count_of(answer.token_ids),
                               .num_logprobs = count_of(answer.logprobs),
                               .num_top = count_of(answer.top_logprobs),
                               .text_bytes = count_of(answer.text)};
    put(out, &head, 1);
    put(out, answer.token_ids.data(), answer.token_ids.size());
    put(out, answer.logprobs.data(), answer.logprobs.size());
    put_top(out, answer.top_logprobs);
    out += answer.text;
  }
}

void unpack_more(Unpacker& in, RowResult& result) {
  PackedMore more = {};
  in.get(&more, 1);
  result.prompt_truncated = more.prompt_truncated;
  result.num_prompt_top_logprobs = more.num_prompt_top_logprobs;
  in.fill(result.prompt_is_greedy, more.num_prompt_is_greedy);
  in.fill_top(result.prompt_top_logprobs, more.num_prompt_top);
  in.fill(result.scored_tokens, more.num_scored_tokens);
  for (uint32_t i = 0; i < more.num_answers; ++i) {
    PackedAnswer head = {};
    in.get(&head, 1);
    if (head.finish_reason >= static_cast<uint32_t>(FinishReason::error))
      throw Error("a sealed answer has a finish reason that one of several cannot have");
    Answer& answer = result.more_answers.emplace_back();
    answer.finish_reason = static_cast<FinishReason>(head.finish_reason);
    in.fill(answer.token_ids, head.num_token_ids);
    in.fill(answer.logprobs, head.num_logprobs);
    in.fill_top(answer.top_logprobs, head.num_top);
    in.fill(answer.text, head.text_bytes);
  }
  if (!has_more(result)) throw Error("a sealed answer has a part with nothing in it");
}

std::string header_and_entries(const std::string& run_id, const std::vector<SegmentEntry>& entries) {
  std::string out(kSegmentMagic);
  out += run_id;
  const uint64_t num_rows = entries.size();
  put(out, &num_rows, 1);
  put(out, entries.data(), entries.size());
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

void pack_row(const RowResult& result, std::string& out) {
  const PackedRow head = {.row = result.row,
                          .prompt_length = result.prompt_length,
                          .num_top_logprobs = result.num_top_logprobs,
                          .finish_reason = static_cast<uint32_t>(result.finish_reason),
                          .endpoint = static_cast<uint16_t>(result.endpoint),
                          .id_kind = static_cast<uint16_t>(result.id_kind),
                          .num_token_ids = count_of(result.token_ids),
                          .num_logprobs = count_of(result.logprobs),
                          .num_top = count_of(result.top_logprobs),
                          .num_prompt_logprobs = count_of(result.prompt_logprobs),
                          .id_bytes = count_of(result.id),
                          .error_bytes = count_of(result.error),
                          .text_bytes = count_of(result.text),
                          .model_bytes = count_of(result.model)};
  put(out, &head, 1);
  put(out, result.token_ids.data(), result.token_ids.size());
  put(out, result.logprobs.data(), result.logprobs.size());
  put_top(out, result.top_logprobs);
  put(out, result.prompt_logprobs.data(), result.prompt_logprobs.size());
  out += result.id;
  out += result.error;
  out += result.text;
  out += result.model;
  pack_more(result, out);
}

RowResult unpack_row(std::string_view bytes) {
  Unpacker in(bytes);
  PackedRow head = {};
  in.get(&head, 1);
  if (head.finish_reason > static_cast<uint32_t>(FinishReason::error) ||
      head.endpoint > static_cast<uint16_t>(Endpoint::chat_completions) ||
      head.id_kind > static_cast<uint16_t>(IdKind::integer))
    throw Error("a sealed answer has a finish reason, endpoint or kind of id that does not exist");
  RowResult result = {.row = head.row};
  result.prompt_length = head.prompt_length;
  result.num_top_logprobs = head.num_top_logprobs;
  result.finish_reason = static_cast<FinishReason>(head.finish_reason);
  result.endpoint = static_cast<Endpoint>(head.endpoint);
  result.id_kind = static_cast<IdKind>(head.id_kind);
  in.fill(result.token_ids, head.num_token_ids);
  in.fill(result.logprobs, head.num_logprobs);
  in.fill_top(result.top_logprobs, head.num_top);
  in.fill(result.prompt_logprobs, head.num_prompt_logprobs);
  in.fill(result.id, head.id_bytes);
  in.fill(result.error, head.error_bytes);
  in.fill(result.text, head.text_bytes);
  in.fill(result.model, head.model_bytes);
  if (!in.done()) unpack_more(in, result);
  if (!in.done()) throw Error("a sealed answer is longer than its header says");
  return result;
}

void check_result(const RowResult& result) {
  const auto fail = [&](const std::string& what) {
    throw Error(fmt::format("the answer to row {} is damaged: {}", result.row, what));
  };
  for (const int32_t count : {result.num_top_logprobs, result.num_prompt_top_logprobs})
    if (count < 0 || count > kMostTopLogprobs) fail(fmt::format("{} most likely tokens", count));
  const auto check = [&](const auto& answer) {
    const size_t num_tokens = answer.token_ids.size();
    if (!answer.logprobs.empty() && answer.logprobs.size() != num_tokens)
      fail(fmt::format("{} log-probabilities for {} tokens", answer.logprobs.size(), num_tokens));
    if (answer.top_logprobs.size() != static_cast<size_t>(result.num_top_logprobs) * num_tokens)
      fail(fmt::format("{} most likely tokens where {} for each of {} belong", answer.top_logprobs.size(),
                       result.num_top_logprobs, num_tokens));
  };
  check(result);
  for (const Answer& answer : result.more_answers) check(answer);
  const size_t num_scored = result.prompt_logprobs.size();
  if (result.prompt_top_logprobs.size() != static_cast<size_t>(result.num_prompt_top_logprobs) * num_scored)
    fail(fmt::format("{} most likely tokens where {} for each of {} scores belong",
                     result.prompt_top_logprobs.size(), result.num_prompt_top_logprobs, num_scored));
  if (!result.scored_tokens.empty() && result.scored_tokens.size() != num_scored)
    fail(fmt::format("{} tokens for {} scores", result.scored_tokens.size(), num_scored));
  if (!result.prompt_is_greedy.empty() && result.prompt_is_greedy.size() != result.prompt_logprobs.size())
    fail(fmt::format("{} greedy choices for {} log-probabilities", result.prompt_is_greedy.size(),
                     result.prompt_logprobs.size()));
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
