#include "coordinator/row_order.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>

#include "base/common_prefix.h"
#include "job/answer_key.h"
#include "moerun/error.h"

namespace moerun {

namespace {

/// Pieces a group at least, if rows are many: so that groups end together.
constexpr double kPiecesAGroup = 256;
/// A row that begins a piece may have this part of the piece's work in common with the row before.
constexpr double kMostTwice = 0.005;
/// Bytes of a key a token: of ids exactly, of text about.
constexpr double kTokenBytes = 4;
/// Kinds of rows with one prompt that are told apart.
constexpr size_t kMostKinds = 4096;
/// A token that is drawn costs about what so many of a prompt do: a step reads all weights for it.
constexpr double kDrawnTokens = 8;

enum class Content : char { none = 'n', tokens = 'i', text = 't', messages = 'm' };

/// A row's prompt as bytes whose order brings together what begins alike. Token ids are big-endian.
std::string key_of(const PromptRecord& record) {
  if (!record.error.empty()) return {static_cast<char>(Content::none)};
  if (record.prompt) return static_cast<char>(Content::text) + *record.prompt;
  if (record.messages) return static_cast<char>(Content::messages) + *record.messages;
  std::string key(1, static_cast<char>(Content::tokens));
  if (record.prompt_token_ids) {
    key.resize(1 + 4 * record.prompt_token_ids->size());
    char* to = key.data() + 1;
    for (const int32_t id : *record.prompt_token_ids)
      for (const int shift : {24, 16, 8, 0}) *to++ = static_cast<char>(static_cast<uint32_t>(id) >> shift);
  }
  return key;
}

/// Puts the prompt back that the key has.
void restore(const std::string& key, PromptRecord& record) {
  switch (static_cast<Content>(key.at(0))) {
    case Content::none:
      break;
    case Content::text:
      record.prompt = key.substr(1);
      break;
    case Content::messages:
      record.messages = key.substr(1);
      break;
    case Content::tokens: {
      std::vector<int32_t>& ids = record.prompt_token_ids.emplace(key.size() / 4);
      const char* from = key.data() + 1;
      for (int32_t& id : ids) {
        uint32_t bits = 0;
        for (size_t k = 0; k < 4; ++k) bits = bits << 8 | static_cast<unsigned char>(*from++);
        id = static_cast<int32_t>(bits);
      }
    }
  }
}

/// What tells rows with equal prompts apart of which each is computed; 0 where all are.
uint64_t kind_of(const SamplingParams& sampling) {
  const std::optional<std::string> key = answer_key(sampling);
  return key ? std::hash<std::string>()(*key) | 1 : 0;
}

double drawn_work(const SamplingParams& sampling) {
  return kDrawnTokens * static_cast<double>(sampling.n) * static_cast<double>(sampling.max_tokens);
}

}  // namespace

RowOrder::RowOrder(const Options& options)
    : options_(options),
      forms_(options.memory_bytes),
      sorter_(options.directory, options.memory_bytes),
      sorted_(options.directory, options.memory_bytes),
      groups_(options.num_groups) {}

void RowOrder::add(PromptRecord record) {
  const std::string key = key_of(record);
  if (record.error.empty()) record.prompt.reset(), record.prompt_token_ids.reset(), record.messages.reset();
  const double drawn = drawn_work(record.sampling);
  work_ += static_cast<double>(key.size()) / kTokenBytes + drawn;
  WireWriter packed;
  packed.put(drawn), packed.put(kind_of(record.sampling)), packed.put(forms_.take_from(record));
  put_record(packed, record);
  sorter_.add(key, packed.bytes());
  ++rows_left_;
}

void RowOrder::finish() {
  const double least = work_ / (kPiecesAGroup * static_cast<double>(options_.num_groups));
  sorter_.finish();
  Piece piece;
  std::string before, packed;
  std::unordered_set<uint64_t> kinds;  // of the rows that have the same prompt
  for (KeyedRecord row; sorter_.next(row);) {
    const size_t alike = common_prefix<char>(before, row.key);
    const double twice = static_cast<double>(alike) / kTokenBytes;
    double drawn = 0;
    uint64_t kind = 0;
    WireReader in(row.record);
    in.get(drawn), in.get(kind);
    if (alike < before.size() || alike < row.key.size() || kinds.size() > kMostKinds) kinds.clear();
    const bool repeats = kind != 0 && kinds.contains(kind);
    if (!repeats && piece.rows > 0 && piece.work >= least && twice <= kMostTwice * piece.work) {
      pieces_.push_back(piece);
      piece = {.begin = piece.end, .end = piece.end};
      kinds.clear();
    }
    kinds.insert(kind);
    if (!repeats) piece.work += static_cast<double>(row.key.size() - alike) / kTokenBytes + drawn;
    packed.clear();
    const uint64_t bytes = alike;
    row.record.append(reinterpret_cast<const char*>(&bytes), sizeof bytes);
    RecordReader::put(row.key, row.record, packed);
    sorted_.append(packed);
    piece.end = sorted_.bytes();
    ++piece.rows;
    std::swap(before, row.key);
  }
  if (piece.rows > 0) pieces_.push_back(piece);
  sorted_.end();
  std::stable_sort(pieces_.begin(), pieces_.end(),
                   [](const Piece& a, const Piece& b) { return a.work > b.work; });
  finished_ = true;
}

bool RowOrder::next(size_t group, bool begins, PromptRecord& record, RowPlace& place) {
  Group& to = groups_[group];
  const bool first = to.rows == 0;
  if (first) {
    if (!begins || pieces_.empty()) return false;
    to.reader.emplace(sorted_, pieces_.front().begin, pieces_.front().end);
    to.rows = pieces_.front().rows;
    pieces_.pop_front();
  }
  KeyedRecord row;
  if (!to.reader->next(row)) throw Error("rows that were put in order are missing");
  WireReader in(row.record);
  in.get<double>(), in.get<uint64_t>();
  const auto form = in.get<uint32_t>();
  record = get_record(in);
  forms_.give_back(form, record);
  const auto alike = in.get<uint64_t>();
  restore(row.key, record);
  place = {.ordered = true,
           .follows = !first,
           .alike = static_cast<double>(alike) / static_cast<double>(row.key.size())};
  if (--to.rows == 0) to.reader.reset();
  --rows_left_;
  return true;
}

}  // namespace moerun
