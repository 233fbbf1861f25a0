#include "io/openai_line.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

#include "io/json_text.h"
#include "text/checksum.h"
#include "text/unicode.h"

namespace moerun {

namespace {

using json_text::json_string;
using json_text::put;
using json_text::put_bools;
using json_text::put_float;
using json_text::put_floats;
using json_text::put_list;
using json_text::string_or_null;

size_t num_top(const RowResult& result) { return static_cast<size_t>(std::max(result.num_top_logprobs, 0)); }

/// The texts of token ids, as JSON.
class TokenTexts {
 public:
  explicit TokenTexts(const Tokenizer* tokenizer) : tokenizer_(tokenizer) {}

  std::string_view bytes(int32_t id) const {
    return tokenizer_ ? tokenizer_->token_bytes(id) : std::string_view();
  }
  bool is_special(int32_t id) const { return tokenizer_ && tokenizer_->is_special(id); }

  void put_text(int32_t id, std::string& out) const {
    const std::string_view text = bytes(id);
    if (text.empty()) return put(out, R"("token_id:{}")", id);
    if (!find_invalid_utf8(text)) {
      out += json_string(text);
      return;
    }
    out += "\"bytes:";
    for (const char byte : text) put(out, R"(\\x{:02x})", static_cast<unsigned char>(byte));
    out += '"';
  }

  void put_bytes(int32_t id, std::string& out) const {
    const std::string_view text = bytes(id);
    if (text.empty()) {
      out += "null";
      return;
    }
    put_list(text.size(), out, [&](size_t i) { put(out, "{}", static_cast<unsigned char>(text[i])); });
  }

 private:
  const Tokenizer* tokenizer_;
};

size_t num_characters(std::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }));
}

void put_token_logprob(const TokenTexts& texts, int32_t token, float logprob, std::string& out) {
  out += R"({"token": )";
  texts.put_text(token, out);
  out += R"(, "logprob": )";
  put_float(logprob, out);
  out += R"(, "bytes": )";
  texts.put_bytes(token, out);
}

void put_chat_logprobs(const auto& answer, size_t num_top, const TokenTexts& texts, std::string& out) {
  out += R"({"content": )";
  put_list(answer.logprobs.size(), out, [&](size_t i) {
    put_token_logprob(texts, answer.token_ids.at(i), answer.logprobs[i], out);
    out += R"(, "top_logprobs": )";
    put_list(num_top, out, [&](size_t k) {
      const auto& [token, logprob] = answer.top_logprobs.at(i * num_top + k);
      put_token_logprob(texts, token, logprob, out);
      out += '}';
    });
    out += '}';
  });
  out += R"(, "refusal": null})";
}

/// The tokens of a completion's log-probabilities: those of the prompt where it is repeated, then the
/// answer's.
struct SpelledTokens {
  std::string_view prompt;                 ///< its text; empty where it is not repeated
  std::span<const int32_t> prompt_tokens;  ///< [of them that are scored]
  const RowResult* row = nullptr;
};

void put_text_offsets(const SpelledTokens& from, const auto& answer, const TokenTexts& texts,
                      std::string& out) {
  // Less than the tokens', where a stop string cut the text.
  const size_t before = num_characters(from.prompt), most = before + num_characters(answer.text);
  const size_t prompt = from.prompt_tokens.size();
  size_t characters = prompt > 0 ? 0 : before;
  put_list(prompt + answer.token_ids.size(), out, [&](size_t i) {
    if (i == prompt) characters = before;
    put(out, "{}", std::min(characters, i < prompt ? before : most));
    const int32_t token = i < prompt ? from.prompt_tokens[i] : answer.token_ids[i - prompt];
    if (!texts.is_special(token)) characters += num_characters(texts.bytes(token));
  });
}

/// {"token": logprob, …}; null where there are none.
void put_top_object(std::span<const std::pair<int32_t, float>> top, const TokenTexts& texts,
                    std::string& out) {
  out += '{';
  for (size_t k = 0; k < top.size(); ++k) {
    if (k > 0) out += ", ";
    texts.put_text(top[k].first, out);
    out += ": ";
    put_float(top[k].second, out);
  }
  out += '}';
}

void put_completion_logprobs(const SpelledTokens& from, const auto& answer, const TokenTexts& texts,
                             std::string& out) {
  const RowResult& row = *from.row;
  const size_t prompt = from.prompt_tokens.size(), count = prompt + answer.token_ids.size();
  out += R"({"tokens": )";
  put_list(count, out, [&](size_t i) {
    texts.put_text(i < prompt ? from.prompt_tokens[i] : answer.token_ids[i - prompt], out);
  });
  out += R"(, "token_logprobs": )";
  put_list(count, out, [&](size_t i) {  // a prompt's first has none: NaN is null
    put_float(i < prompt ? row.prompt_logprobs[i] : answer.logprobs[i - prompt], out);
  });
  out += R"(, "top_logprobs": )";
  if (num_top(row) == 0)
    out += "null";
  else
    put_list(count, out, [&](size_t i) {
      const auto of_prompt = static_cast<size_t>(row.num_prompt_top_logprobs);
      if (i < prompt && std::isnan(row.prompt_logprobs[i]))
        out += "null";
      else if (i < prompt)
        put_top_object(
            std::span(row.prompt_top_logprobs).subspan(i * of_prompt, std::min(of_prompt, num_top(row))),
            texts, out);
      else
        put_top_object(std::span(answer.top_logprobs).subspan((i - prompt) * num_top(row), num_top(row)),
                       texts, out);
    });
  out += R"(, "text_offset": )";
  put_text_offsets(from, answer, texts, out);
  out += '}';
}

/// A token of a prompt as vLLM spells it: {"id": {"logprob", "rank", "decoded_token"}, …}, the token itself
/// first. How many are more likely is known of the most likely alone.
void put_prompt_token(const RowResult& row, size_t i, const TokenTexts& texts, std::string& out) {
  const auto count = static_cast<size_t>(row.num_prompt_top_logprobs);
  const std::span top = std::span(row.prompt_top_logprobs).subspan(i * count, count);
  const int32_t own = row.scored_tokens[i];
  const auto put_one = [&](int32_t token, float logprob, size_t rank) {
    put(out, R"("{}": {{"logprob": )", token);
    put_float(logprob, out);
    out += R"(, "rank": )";
    out += rank > 0 ? std::to_string(rank) : "null";
    out += R"(, "decoded_token": )";
    texts.put_text(token, out);
    out += '}';
  };
  const auto at = std::find_if(top.begin(), top.end(), [&](const auto& one) { return one.first == own; });
  out += '{';
  put_one(own, row.prompt_logprobs[i], at == top.end() ? 0 : static_cast<size_t>(at - top.begin()) + 1);
  for (size_t k = 0; k < top.size(); ++k) {
    if (top[k].first == own || top[k].first < 0) continue;
    out += ", ";
    put_one(top[k].first, top[k].second, k + 1);
  }
  out += '}';
}

void put_prompt_logprobs(const RowResult& row, const TokenTexts& texts, std::string& out) {
  if (row.prompt_logprobs.empty()) return;
  out += R"(, "prompt_logprobs": )";
  if (row.num_prompt_top_logprobs == 0) return put_floats(row.prompt_logprobs, out);
  put_list(row.prompt_logprobs.size(), out, [&](size_t i) {
    if (std::isnan(row.prompt_logprobs[i]))  // the first
      out += "null";
    else
      put_prompt_token(row, i, texts, out);
  });
}

std::string_view span_of(const std::string& text, ChatParts::Span span) {
  return std::string_view(text).substr(span.begin, span.end - span.begin);
}

/// `tool_calls`, with ids that come from the row alone.
void put_tool_calls(const RowResult& row, size_t index, const std::string& calls, std::string& out) {
  constexpr size_t kDigits = 24;
  const nlohmann::json list = nlohmann::json::parse(calls);
  out += R"(, "tool_calls": )";
  put_list(list.size(), out, [&](size_t i) {
    const std::string own = fmt::format("{}\n{}\n{}\n{}", row.id, row.id.empty() ? row.row : 0, index, i);
    put(out, R"({{"id": "call_{}", "type": "function", "function": {{"name": {}, "arguments": {}}}}})",
        sha256_hex(own).substr(0, kDigits), json_string(list[i].at("name").get<std::string>()),
        json_string(list[i].at("arguments").get<std::string>()));
  });
}

/// A chat's answer as a message: its parts, as far as its family's markers tell them apart.
void put_message(const RowResult& row, size_t index, const auto& answer, std::string& out) {
  const ChatParts& chat = answer.chat;
  const ChatParts::Span all{0, static_cast<uint32_t>(answer.text.size())};
  const ChatParts::Span whole = chat.known ? chat.content : all;
  std::string content(span_of(answer.text, whole));
  if (!chat.tool_calls.empty()) {
    content = span_of(answer.text, {whole.begin, chat.calls.begin});
    for (const nlohmann::json& call : nlohmann::json::parse(chat.tool_calls))
      content += call.value("said", std::string());
    content += span_of(answer.text, {chat.calls.end, whole.end});
  }
  const bool none = content.empty() && (chat.has_reasoning || !chat.tool_calls.empty());
  put(out, R"({{"role": "assistant", "content": {}, "refusal": null)", none ? "null" : json_string(content));
  if (chat.has_reasoning)
    put(out, R"(, "reasoning_content": {})", json_string(span_of(answer.text, chat.reasoning)));
  if (!chat.tool_calls.empty()) put_tool_calls(row, index, chat.tool_calls, out);
  out += '}';
}

/// One of a row's answers: the row itself, or one of its others.
void put_choice(const RowResult& row, size_t index, const auto& answer, const TokenTexts& texts,
                std::string& out) {
  const size_t answers = 1 + row.more_answers.size();
  const bool chat = row.endpoint == Endpoint::chat_completions;
  const std::string prompt = row.echo.value_or("");
  put(out, R"({{"index": {}, )", static_cast<size_t>(row.part.index) * answers + index);
  if (chat) {
    out += R"("message": )";
    put_message(row, index, answer, out);
  } else {
    put(out, R"("text": {})", json_string(prompt + answer.text));
  }
  out += R"(, "logprobs": )";
  // A completion that repeats its prompt may have no other token.
  const bool echoes = row.echo && !row.prompt_logprobs.empty();
  if (answer.logprobs.empty() && !echoes)
    out += "null";
  else if (chat)
    put_chat_logprobs(answer, num_top(row), texts, out);
  else
    put_completion_logprobs(
        {prompt, echoes ? std::span(row.scored_tokens) : std::span<const int32_t>(), &row}, answer, texts,
        out);
  // vLLM has the prompt's in a completion's choice, and beside the choices of a chat.
  if (index == 0 && !echoes && !(chat && row.num_prompt_top_logprobs > 0))
    put_prompt_logprobs(row, texts, out);
  if (index == 0 && !row.prompt_is_greedy.empty()) {
    out += R"(, "prompt_is_greedy": )";
    put_bools(row.prompt_is_greedy, out);
  }
  // Of a function that the request has named OpenAI says "stop", as vLLM does.
  const bool calls = answer.finish_reason == FinishReason::stop && !answer.chat.tool_calls.empty() &&
                     !nlohmann::json::parse(answer.chat.tool_calls).at(0).value("named", false);
  put(out, R"(, "finish_reason": "{}"}})", calls ? "tool_calls" : name_of(answer.finish_reason));
}

/// What the line took. Of prompts, how much was taken over from others depends on what ran beside the rows:
/// there are no `prompt_tokens_details`.
void put_usage(std::span<const RowResult> rows, std::string& out) {
  size_t prompt = 0, completion = 0;
  int64_t reasoning = 0, truncated = -1;
  for (const RowResult& row : rows) {
    prompt += static_cast<size_t>(row.prompt_length);
    completion += row.token_ids.size();
    reasoning += row.chat.reasoning_tokens;
    if (row.prompt_truncated >= 0) truncated = std::max<int64_t>(truncated, 0) + row.prompt_truncated;
    for (const Answer& answer : row.more_answers) {
      completion += answer.token_ids.size();
      reasoning += answer.chat.reasoning_tokens;
    }
  }
  put(out, R"(, "usage": {{"prompt_tokens": {}, "completion_tokens": {}, "total_tokens": {})", prompt,
      completion, prompt + completion);
  if (rows.front().endpoint == Endpoint::chat_completions)
    put(out, R"(, "completion_tokens_details": {{"reasoning_tokens": {}}})", reasoning);
  if (truncated >= 0) put(out, R"(, "prompt_truncated": {})", truncated);
  out += '}';
}

void put_choices(std::span<const RowResult> rows, const TokenTexts& texts, std::string& out) {
  out += R"("choices": )";
  put_list(rows.size(), out, [&](size_t i) {
    put_choice(rows[i], 0, rows[i], texts, out);
    for (size_t index = 1; const Answer& answer : rows[i].more_answers) {
      out += ", ";
      put_choice(rows[i], index++, answer, texts, out);
    }
  });
}

}  // namespace

void append_openai_line(std::span<const RowResult> rows, const OpenAiLines& lines, std::string& out) {
  const RowResult& result = rows.front();
  put(out, R"({{"id": "batch_req_{}", "custom_id": {}, )", result.row,
      result.id_kind == IdKind::integer ? result.id : string_or_null(result.id));
  const auto bad = std::find_if(rows.begin(), rows.end(), [](const RowResult& row) {
    return row.finish_reason == FinishReason::error;
  });
  if (bad != rows.end()) {
    put(out, R"("response": null, "error": {{"code": "invalid_request", "message": {}}}}})",
        json_string(bad->error));
    return;
  }
  const bool chat = result.endpoint == Endpoint::chat_completions;
  put(out,
      R"("response": {{"status_code": 200, "request_id": "{0}", "body": {{"id": "{1}-{0}", "object": "{2}", )"
      R"("created": {3}, "model": {4}, "system_fingerprint": {5}, )",
      result.row, chat ? "chatcmpl" : "cmpl", chat ? "chat.completion" : "text_completion", lines.created,
      json_string(result.model.empty() ? lines.model : result.model),
      string_or_null(lines.system_fingerprint));
  const TokenTexts texts(lines.tokenizer.get());
  put_choices(rows, texts, out);
  if (chat && result.num_prompt_top_logprobs > 0) put_prompt_logprobs(result, texts, out);
  put_usage(rows, out);
  out += R"(}}, "error": null})";
}

}  // namespace moerun
