#include "io/ledger.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>

#include "io/durable_file.h"
#include "io/json_number.h"

namespace moerun {

namespace fs = std::filesystem;

namespace {

constexpr size_t kChecksumDigits = 8;

std::optional<SegmentRecord> parse_line(std::string_view line) {
  if (line.size() < kChecksumDigits + 2 || line[kChecksumDigits] != ' ') return std::nullopt;
  const std::string_view text = line.substr(kChecksumDigits + 1);
  if (line.substr(0, kChecksumDigits) != fmt::format("{:08x}", crc32_of(text))) return std::nullopt;
  try {
    const auto json = nlohmann::json::parse(text);
    SegmentRecord segment;
    json.at("name").get_to(segment.name);
    if (!segment_number(segment.name)) return std::nullopt;
    segment.bytes = whole_number<uint64_t>(json, "bytes");
    segment.rows = whole_number<uint64_t>(json, "rows");
    segment.first_row = whole_number<uint64_t>(json, "first_row");
    segment.last_row = whole_number<uint64_t>(json, "last_row");
    json.at("sha256").get_to(segment.sha256);
    segment.traits.row_errors = whole_number<uint64_t>(json, "row_errors");
    segment.traits.num_top_logprobs = whole_number<int32_t>(json, "num_top_logprobs");
    json.at("logprobs").get_to(segment.traits.logprobs);
    json.at("prompt_logprobs").get_to(segment.traits.prompt_logprobs);
    segment.traits.prompt_is_greedy = json.value("prompt_is_greedy", false);
    if (json.contains("num_prompt_top_logprobs"))
      segment.traits.num_prompt_top_logprobs = whole_number<int32_t>(json, "num_prompt_top_logprobs");
    segment.traits.prompt_truncated = json.value("prompt_truncated", false);
    segment.traits.num_answers =
        json.contains("answers") ? whole_number<uint64_t>(json, "answers") : segment.rows;
    segment.traits.several_answers = segment.traits.num_answers != segment.rows;
    return segment;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  } catch (const Error&) {  // whole_number's
    return std::nullopt;
  }
}

}  // namespace

LedgerContents parse_ledger(std::string_view bytes) {
  LedgerContents contents;
  for (uint64_t number = 1; !bytes.empty(); ++number) {
    const size_t end = bytes.find('\n');
    const bool whole = end != std::string_view::npos;
    const auto segment = whole ? parse_line(bytes.substr(0, end)) : std::nullopt;
    bytes.remove_prefix(whole ? end + 1 : bytes.size());
    if (segment)
      contents.segments.push_back(*segment);
    else if (bytes.empty())
      contents.torn = true;
    else
      contents.damaged.push_back(number);
  }
  return contents;
}

std::string ledger_line(const SegmentRecord& segment) {
  const std::string text =
      nlohmann::ordered_json{{"name", segment.name},
                             {"bytes", segment.bytes},
                             {"rows", segment.rows},
                             {"first_row", segment.first_row},
                             {"last_row", segment.last_row},
                             {"sha256", segment.sha256},
                             {"row_errors", segment.traits.row_errors},
                             {"num_top_logprobs", segment.traits.num_top_logprobs},
                             {"logprobs", segment.traits.logprobs},
                             {"prompt_logprobs", segment.traits.prompt_logprobs},
                             {"prompt_is_greedy", segment.traits.prompt_is_greedy},
                             {"num_prompt_top_logprobs", segment.traits.num_prompt_top_logprobs},
                             {"prompt_truncated", segment.traits.prompt_truncated},
                             {"answers", segment.traits.num_answers}}
          .dump();
  return fmt::format("{:08x} {}\n", crc32_of(text), text);
}

Ledger::Ledger(const Directory& directory)
    : path_(directory.path_of(kLedgerName)), file_(directory.open_to_append(kLedgerName)) {}

void Ledger::append(const SegmentRecord& segment) {
  write_all(file_.get(), ledger_line(segment), path_);
  sync_file(file_.get(), path_);
}

void write_ledger(const Directory& directory, const std::vector<SegmentRecord>& segments) {
  std::string text;
  for (const SegmentRecord& segment : segments) text += ledger_line(segment);
  directory.write_durably(kLedgerName, {text});
}

std::string segment_name(uint64_t number) { return fmt::format("segment-{:06}", number); }

std::optional<uint64_t> segment_number(std::string_view name) {
  constexpr std::string_view kPrefix = "segment-";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), number);
  // The name must be the one that the number has: "segment-+1" and "segment-1" are none.
  if (error != std::errc() || end != name.data() + name.size() || number == UINT64_MAX ||
      name != segment_name(number))
    return std::nullopt;
  return number;
}

}  // namespace moerun
