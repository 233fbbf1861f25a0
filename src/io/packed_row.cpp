#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>

#include "io/segment.h"
#include "moerun/error.h"

namespace moerun {

static_assert(std::endian::native == std::endian::little, "segments are written as they lie in memory");

namespace {

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
  uint32_t prompt_routed_bytes, routed_bytes;
};
// Behind that, where an answer to a chat has parts or a completion repeats its prompt: of each answer in
// turn.
struct PackedChat {
  uint32_t known, has_reasoning;
  ChatParts::Span reasoning, content, calls;
  int32_t reasoning_tokens;
  uint32_t tool_calls_bytes;
};
struct PackedEcho {
  LinePart part;
  uint32_t echoes, bytes;
};
struct PackedAnswer {
  uint32_t finish_reason;
  uint32_t num_token_ids, num_logprobs, num_top, text_bytes, routed_bytes;
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

/// Whether some of the row's answers have parts, or it repeats its prompt.
bool has_parts(const RowResult& result) {
  return result.echo || result.part != LinePart() || result.chat.known ||
         std::any_of(result.more_answers.begin(), result.more_answers.end(),
                     [](const Answer& answer) { return answer.chat.known; });
}

void pack_chat(const ChatParts& chat, std::string& out) {
  const PackedChat head = {.known = chat.known,
                           .has_reasoning = chat.has_reasoning,
                           .reasoning = chat.reasoning,
                           .content = chat.content,
                           .calls = chat.calls,
                           .reasoning_tokens = chat.reasoning_tokens,
                           .tool_calls_bytes = count_of(chat.tool_calls)};
  put(out, &head, 1);
  out += chat.tool_calls;
}

/// Whether a line can say them.
bool are_calls(const std::string& text) {
  const nlohmann::json list = nlohmann::json::parse(text, nullptr, false);
  const auto is_call = [](const nlohmann::json& one) {
    return one.is_object() && one.value("name", nlohmann::json()).is_string() &&
           one.value("arguments", nlohmann::json()).is_string() &&
           one.value("said", nlohmann::json("")).is_string() &&
           one.value("named", nlohmann::json(true)).is_boolean();
  };
  return list.is_array() && !list.empty() && std::all_of(list.begin(), list.end(), is_call);
}

void unpack_chat(Unpacker& in, ChatParts& chat, const std::string& text) {
  PackedChat head = {};
  in.get(&head, 1);
  for (const ChatParts::Span& span : {head.reasoning, head.content, head.calls})
    if (span.begin > span.end || span.end > text.size())
      throw Error("a sealed answer has parts that lie outside of its text");
  if (head.known > 1 || head.has_reasoning > 1) throw Error("a sealed answer says neither yes nor no");
  chat = {.known = head.known != 0,
          .has_reasoning = head.has_reasoning != 0,
          .reasoning = head.reasoning,
          .content = head.content,
          .calls = head.calls,
          .reasoning_tokens = head.reasoning_tokens};
  in.fill(chat.tool_calls, head.tool_calls_bytes);
  if (!chat.tool_calls.empty() && !are_calls(chat.tool_calls))
    throw Error("a sealed answer has calls of functions that are none");
}

void pack_parts(const RowResult& result, std::string& out) {
  const std::string echo = result.echo.value_or("");
  const PackedEcho head = {.part = result.part, .echoes = result.echo.has_value(), .bytes = count_of(echo)};
  put(out, &head, 1);
  out += echo;
  pack_chat(result.chat, out);
  for (const Answer& answer : result.more_answers) pack_chat(answer.chat, out);
}

void unpack_parts(Unpacker& in, RowResult& result) {
  PackedEcho head = {};
  in.get(&head, 1);
  std::string echo;
  in.fill(echo, head.bytes);
  if (head.echoes > 1 || (head.echoes == 0 && !echo.empty()))
    throw Error("a sealed answer says neither yes nor no");
  if (head.echoes != 0) result.echo = std::move(echo);
  if (head.part.index < 0 || head.part.index >= head.part.count)
    throw Error("a sealed answer is a part of its line that there cannot be");
  result.part = head.part;
  unpack_chat(in, result.chat, result.text);
  for (Answer& answer : result.more_answers) unpack_chat(in, answer.chat, answer.text);
}

/// Whether a row has what few rows have; else the part is not written.
bool has_more(const RowResult& result) {
  return !result.prompt_is_greedy.empty() || !result.more_answers.empty() || result.prompt_truncated >= 0 ||
         result.num_prompt_top_logprobs != 0 || !result.prompt_top_logprobs.empty() ||
         !result.scored_tokens.empty() || !result.prompt_routed.empty() || !result.routed.empty() ||
         has_parts(result);
}

void pack_more(const RowResult& result, std::string& out) {
  if (!has_more(result)) return;
  const PackedMore more = {.num_prompt_is_greedy = count_of(result.prompt_is_greedy),
                           .num_answers = count_of(result.more_answers),
                           .prompt_truncated = result.prompt_truncated,
                           .num_prompt_top_logprobs = result.num_prompt_top_logprobs,
                           .num_prompt_top = count_of(result.prompt_top_logprobs),
                           .num_scored_tokens = count_of(result.scored_tokens),
                           .prompt_routed_bytes = count_of(result.prompt_routed),
                           .routed_bytes = count_of(result.routed)};
  put(out, &more, 1);
  put(out, result.prompt_is_greedy.data(), result.prompt_is_greedy.size());
  put_top(out, result.prompt_top_logprobs);
  put(out, result.scored_tokens.data(), result.scored_tokens.size());
  put(out, result.prompt_routed.data(), result.prompt_routed.size());
  put(out, result.routed.data(), result.routed.size());
  for (const Answer& answer : result.more_answers) {
    const PackedAnswer head = {.finish_reason = static_cast<uint32_t>(answer.finish_reason),
                               .num_token_ids = count_of(answer.token_ids),
                               .num_logprobs = count_of(answer.logprobs),
                               .num_top = count_of(answer.top_logprobs),
                               .text_bytes = count_of(answer.text),
                               .routed_bytes = count_of(answer.routed)};
    put(out, &head, 1);
    put(out, answer.token_ids.data(), answer.token_ids.size());
    put(out, answer.logprobs.data(), answer.logprobs.size());
    put_top(out, answer.top_logprobs);
    out += answer.text;
    put(out, answer.routed.data(), answer.routed.size());
  }
  if (has_parts(result)) pack_parts(result, out);
}

void unpack_more(Unpacker& in, RowResult& result) {
  PackedMore more = {};
  in.get(&more, 1);
  result.prompt_truncated = more.prompt_truncated;
  result.num_prompt_top_logprobs = more.num_prompt_top_logprobs;
  in.fill(result.prompt_is_greedy, more.num_prompt_is_greedy);
  in.fill_top(result.prompt_top_logprobs, more.num_prompt_top);
  in.fill(result.scored_tokens, more.num_scored_tokens);
  in.fill(result.prompt_routed, more.prompt_routed_bytes);
  in.fill(result.routed, more.routed_bytes);
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
    in.fill(answer.routed, head.routed_bytes);
  }
  if (!in.done()) {
    unpack_parts(in, result);
    if (!has_parts(result)) throw Error("a sealed answer has a part with nothing in it");
  }
  if (!has_more(result)) throw Error("a sealed answer has a part with nothing in it");
}

}  // namespace

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
    for (const ChatParts::Span& span : {answer.chat.reasoning, answer.chat.content, answer.chat.calls})
      if (span.begin > span.end || span.end > answer.text.size())
        fail(fmt::format("bytes {} to {} of a text of {}", span.begin, span.end, answer.text.size()));
  };
  const auto num_prompt = static_cast<size_t>(std::max(result.prompt_length, 0));
  const size_t of_token = num_prompt > 0 ? result.prompt_routed.size() / num_prompt : 0;
  if (result.prompt_routed.size() != of_token * num_prompt)
    fail(fmt::format("{} bytes of routed experts for a prompt of {} tokens", result.prompt_routed.size(),
                     num_prompt));
  const auto check_routed = [&](const auto& answer) {
    if (answer.routed.size() != of_token * answer.token_ids.size())
      fail(fmt::format("{} bytes of routed experts for {} tokens, where the prompt's have {} each",
                       answer.routed.size(), answer.token_ids.size(), of_token));
  };
  check(result), check_routed(result);
  for (const Answer& answer : result.more_answers) check_routed(answer);
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

}  // namespace moerun
