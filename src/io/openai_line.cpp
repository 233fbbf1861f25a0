#include "io/openai_line.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <string_view>

#include "io/json_text.h"
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

void put_text_offsets(const auto& answer, const TokenTexts& texts, std::string& out) {
  const size_t most = num_characters(answer.text);  // less than the tokens', where a stop string cut it
  size_t characters = 0;
  put_list(answer.token_ids.size(), out, [&](size_t i) {
    put(out, "{}", std::min(characters, most));
    const int32_t token = answer.token_ids[i];
    if (!texts.is_special(token)) characters += num_characters(texts.bytes(token));
  });
}

void put_completion_logprobs(const auto& answer, size_t num_top, const TokenTexts& texts, std::string& out) {
  out += R"({"tokens": )";
  put_list(answer.token_ids.size(), out, [&](size_t i) { texts.put_text(answer.token_ids[i], out); });
  out += R"(, "token_logprobs": )";
  put_floats(answer.logprobs, out);
  out += R"(, "top_logprobs": )";
  if (num_top == 0)
    out += "null";
  else
    put_list(answer.logprobs.size(), out, [&](size_t i) {
      out += '{';
      for (size_t k = 0; k < num_top; ++k) {
        const auto& [token, logprob] = answer.top_logprobs.at(i * num_top + k);
        if (k > 0) out += ", ";
        texts.put_text(token, out);
        out += ": ";
        put_float(logprob, out);
      }
      out += '}';
    });
  out += R"(, "text_offset": )";
  put_text_offsets(answer, texts, out);
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

/// One of a row's answers: the row itself, or one of its others.
void put_choice(const RowResult& row, size_t index, const auto& answer, const TokenTexts& texts,
                std::string& out) {
  const bool chat = row.endpoint == Endpoint::chat_completions;
  if (chat)
    put(out, R"({{"index": {}, "message": {{"role": "assistant", "content": {}}}, "logprobs": )", index,
        json_string(answer.text));
  else
    put(out, R"({{"index": {}, "text": {}, "logprobs": )", index, json_string(answer.text));
  if (answer.logprobs.empty())
    out += "null";
  else if (chat)
    put_chat_logprobs(answer, num_top(row), texts, out);
  else
    put_completion_logprobs(answer, num_top(row), texts, out);
  // vLLM has the prompt's in a completion's choice, and beside the choices of a chat.
  if (index == 0 && !(chat && row.num_prompt_top_logprobs > 0)) put_prompt_logprobs(row, texts, out);
  if (index == 0 && !row.prompt_is_greedy.empty()) {
    out += R"(, "prompt_is_greedy": )";
    put_bools(row.prompt_is_greedy, out);
  }
  put(out, R"(, "finish_reason": "{}"}})", name_of(answer.finish_reason));
}

}  // namespace

void append_openai_line(const RowResult& result, const OpenAiLines& lines, std::string& out) {
  put(out, R"({{"id": "batch_req_{}", "custom_id": {}, )", result.row,
      result.id_kind == IdKind::integer ? result.id : string_or_null(result.id));
  if (result.finish_reason == FinishReason::error) {
    put(out, R"("response": null, "error": {{"code": "invalid_request", "message": {}}}}})",
        json_string(result.error));
    return;
  }
  const bool chat = result.endpoint == Endpoint::chat_completions;
  put(out,
      R"("response": {{"status_code": 200, "request_id": "{0}", "body": {{"id": "{1}-{0}", "object": "{2}", )"
      R"("created": {3}, "model": {4}, "choices": [)",
      result.row, chat ? "chatcmpl" : "cmpl", chat ? "chat.completion" : "text_completion", lines.created,
      json_string(result.model.empty() ? lines.model : result.model));
  const TokenTexts texts(lines.tokenizer.get());
  size_t completion = result.token_ids.size();
  put_choice(result, 0, result, texts, out);
  for (size_t index = 1; const Answer& answer : result.more_answers) {
    out += ", ";
    put_choice(result, index++, answer, texts, out);
    completion += answer.token_ids.size();
  }
  out += ']';
  if (chat && result.num_prompt_top_logprobs > 0) put_prompt_logprobs(result, texts, out);
  put(out, R"(, "usage": {{"prompt_tokens": {}, "completion_tokens": {}, "total_tokens": {})",
      result.prompt_length, completion, static_cast<size_t>(result.prompt_length) + completion);
  if (result.prompt_truncated >= 0) put(out, R"(, "prompt_truncated": {})", result.prompt_truncated);
  out += R"(}}}, "error": null})";
}

}  // namespace moerun
