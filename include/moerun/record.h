#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "moerun/sampling.h"

namespace moerun {

/// What an OpenAI batch line asked for, which decides the form of its response line.
enum class Endpoint : uint8_t { none = 0, completions = 1, chat_completions = 2 };

/// What the input's `id` was written as: 7 and "7" are two ids, and each comes back as it was given.
enum class IdKind : uint8_t { text = 0, integer = 1 };

/// Which of a line's rows one is: an OpenAI batch line may ask for answers to several prompts, each of which
/// is a row, one behind the other.
struct LinePart {
  int32_t index = 0, count = 1;
  bool operator==(const LinePart&) const = default;
};

/// One row of the input, as read by the coordinator and sent to a data-parallel group's leader. Exactly one
/// of `prompt`, `prompt_token_ids`, `messages` is what the row asks; `error` set means that the row is bad
/// and is answered with it.
struct PromptRecord {
  uint64_t row = 0;  ///< 0-based number of the row in the input
  std::string id;    ///< the input's `id`/`custom_id`, integers in decimal; empty when it has none
  IdKind id_kind = IdKind::text;
  LinePart part;
  std::optional<std::string> prompt;
  std::optional<std::vector<int32_t>> prompt_token_ids;
  std::optional<std::string> messages;  ///< JSON: {"messages": [...], "tools"?, "enable_thinking"?}
  /// Tokens that were dropped from the left of `prompt_token_ids`; −1: none is dropped, or not yet.
  int32_t prompt_truncated = -1;
  SamplingParams sampling;             ///< the job's, with the row's own on top
  Endpoint endpoint = Endpoint::none;  ///< of an OpenAI batch line, else none
  std::string model;                   ///< `body.model` of an OpenAI batch line as it was asked for
  bool echo = false;                   ///< the answer's line begins with the prompt's text
  std::string tools;  ///< JSON: functions whose calls are looked for, or held calls (tool_calls.h); or empty
  std::string error;
};

enum class FinishReason : uint8_t { stop = 0, length = 1, error = 2 };

constexpr const char* name_of(FinishReason reason) {
  return reason == FinishReason::stop ? "stop" : reason == FinishReason::length ? "length" : "error";
}

/// What an answer to a chat consists of, by the markers that its family writes: spans of the answer's text.
struct ChatParts {
  struct Span {
    uint32_t begin = 0, end = 0;  ///< bytes
    bool operator==(const Span&) const = default;
  };
  bool known = false;          ///< else all of the text is content
  bool has_reasoning = false;  ///< the model thought, or had begun to
  Span reasoning, content;
  Span calls;                    ///< within `content`, which they are no part of
  int32_t reasoning_tokens = 0;  ///< without the markers
  std::string tool_calls;        ///< JSON: [{"name", "arguments": text, "said"?, "named"?}, …]; empty: none

  bool operator==(const ChatParts&) const = default;
  template <class P, class Io>
  static void each(P& p, Io&& io) {
    io(p.known), io(p.has_reasoning), io(p.reasoning), io(p.content), io(p.calls), io(p.reasoning_tokens);
    io(p.tool_calls);
  }
};

/// One of several answers to a row.
struct Answer {
  std::vector<int32_t> token_ids;
  std::string text;  ///< UTF-8
  FinishReason finish_reason = FinishReason::length;
  std::vector<float> logprobs;                          ///< [token_ids] when asked, else empty
  std::vector<std::pair<int32_t, float>> top_logprobs;  ///< [token_ids * RowResult::num_top_logprobs]
  ChatParts chat;
  /// [token_ids] of RoutedShape when asked, else empty; an answer's last token has none.
  std::vector<uint8_t> routed;

  bool operator==(const Answer&) const = default;
  /// Each member in turn, to travel: `io` writes or reads it.
  template <class A, class Io>
  static void each(A& a, Io&& io) {
    io(a.token_ids), io(a.text), io(a.finish_reason), io(a.logprobs), io(a.top_logprobs);
    ChatParts::each(a.chat, io);
    io(a.routed);
  }
};

/// The answer to one row, as sent back to the coordinator and sealed into the run's segments. Of a row with
/// `n` answers the members are the first one's, and `more_answers` has the others.
struct RowResult {
  uint64_t row = 0;
  std::string id;
  IdKind id_kind = IdKind::text;
  LinePart part;
  Endpoint endpoint = Endpoint::none;  ///< the record's, as the id, the part and the model
  std::string model;
  int32_t prompt_length = 0;      ///< tokens that the model saw
  int32_t prompt_truncated = -1;  ///< that were dropped before them; −1: the job drops none
  std::vector<int32_t> token_ids;
  std::string text;  ///< UTF-8
  FinishReason finish_reason = FinishReason::error;
  std::string error;                                    ///< empty unless finish_reason is error
  std::vector<float> logprobs;                          ///< [token_ids] when asked, else empty
  int32_t num_top_logprobs = 0;                         ///< n of `logprobs: n`
  std::vector<std::pair<int32_t, float>> top_logprobs;  ///< [token_ids * num_top_logprobs], best first
  /// [prompt_length − sampling.prompt_logprobs_start] when asked; that of a prompt's first token is NaN.
  std::vector<float> prompt_logprobs;
  /// As prompt_logprobs, when asked: 1 where the model would have chosen the token; 0 for a prompt's first.
  std::vector<uint8_t> prompt_is_greedy;
  int32_t num_prompt_top_logprobs = 0;  ///< n of `prompt_logprobs: n`
  /// [prompt_logprobs * num_prompt_top_logprobs], best first; −1 and NaN where there is none (a prompt's
  /// first token, a vocabulary that has fewer).
  std::vector<std::pair<int32_t, float>> prompt_top_logprobs;
  /// The tokens of prompt_logprobs, where an OpenAI response line spells them.
  std::vector<int32_t> scored_tokens;
  ChatParts chat;
  /// [prompt_length] and [token_ids] of RoutedShape when asked (Answer::routed), else empty.
  std::vector<uint8_t> prompt_routed, routed;
  std::optional<std::string> echo;   ///< the prompt's text, where the row asked for it
  std::vector<Answer> more_answers;  ///< 1 … n − 1; empty where there is an error
};

}  // namespace moerun
