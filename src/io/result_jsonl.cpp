#include "io/result_jsonl.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string_view>

#include "io/durable_file.h"

namespace moerun {

namespace {

constexpr size_t kBufferBytes = 1 << 20;

template <typename... Values>
void put(std::string& out, fmt::format_string<Values...> form, Values&&... values) {
  fmt::format_to(std::back_inserter(out), form, std::forward<Values>(values)...);
}

// A JSON string. Bytes that are no UTF-8 (they can come from an error that quotes its cause) become U+FFFD.
std::string json_string(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string string_or_null(std::string_view text) { return text.empty() ? "null" : json_string(text); }

void put_float(float value, std::string& out) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  const size_t begin = out.size();
  put(out, "{}", value);
  // Readers take "-0" for the integer 0.
  if (out.find_first_of(".e", begin) == std::string::npos) out += ".0";
}

// "[" item "," item ... "]"
template <typename Item>
void put_list(size_t count, std::string& out, const Item& put_item) {
  out += '[';
  for (size_t i = 0; i < count; ++i) {
    if (i) out += ", ";
    put_item(i);
  }
  out += ']';
}

void put_floats(const std::vector<float>& values, std::string& out) {
  put_list(values.size(), out, [&](size_t i) { put_float(values[i], out); });
}

size_t num_top(const RowResult& result) { return static_cast<size_t>(std::max(result.num_top_logprobs, 0)); }

void put_token_logprob(int32_t token, float logprob, std::string& out) {
  put(out, R"({{"token": "token_id:{}", "logprob": )", token);
  put_float(logprob, out);
  out += R"(, "bytes": null)";
}

void put_chat_logprobs(const RowResult& result, std::string& out) {
  out += R"({"content": )";
  put_list(result.logprobs.size(), out, [&](size_t i) {
    put_token_logprob(result.token_ids.at(i), result.logprobs[i], out);
    out += R"(, "top_logprobs": )";
    put_list(num_top(result), out, [&](size_t k) {
      const auto& [token, logprob] = result.top_logprobs.at(i * num_top(result) + k);
      put_token_logprob(token, logprob, out);
      out += '}';
    });
    out += '}';
  });
  out += '}';
}

void put_completion_logprobs(const RowResult& result, std::string& out) {
  out += R"({"tokens": )";
  put_list(result.token_ids.size(), out,
           [&](size_t i) { put(out, R"("token_id:{}")", result.token_ids[i]); });
  out += R"(, "token_logprobs": )";
  put_floats(result.logprobs, out);
  out += R"(, "top_logprobs": )";
  if (num_top(result) == 0)
    out += "null";
  else
    put_list(result.logprobs.size(), out, [&](size_t i) {
      out += '{';
      for (size_t k = 0; k < num_top(result); ++k) {
        const auto& [token, logprob] = result.top_logprobs.at(i * num_top(result) + k);
        put(out, R"({}"token_id:{}": )", k ? ", " : "", token);
        put_float(logprob, out);
      }
      out += '}';
    });
  out += '}';
}

}  // namespace

void append_result_line(const RowResult& result, std::string& out) {
  put(out, R"({{"row": {}, "id": {}, "prompt_length": {}, "token_ids": )", result.row,
      string_or_null(result.id), result.prompt_length);
  put_list(result.token_ids.size(), out, [&](size_t i) { put(out, "{}", result.token_ids[i]); });
  put(out, R"(, "text": {}, "finish_reason": "{}", "error": {})", json_string(result.text),
      name_of(result.finish_reason), string_or_null(result.error));
  if (!result.logprobs.empty()) {
    out += R"(, "logprobs": )";
    put_floats(result.logprobs, out);
  }
  if (num_top(result) > 0) {
    out += R"(, "top_logprobs": )";
    put_list(result.top_logprobs.size() / num_top(result), out, [&](size_t i) {
      put_list(num_top(result), out, [&](size_t k) {
        const auto& [token, logprob] = result.top_logprobs[i * num_top(result) + k];
        put(out, "[{}, ", token);
        put_float(logprob, out);
        out += ']';
      });
    });
  }
  if (!result.prompt_logprobs.empty()) {
    out += R"(, "prompt_logprobs": )";
    put_floats(result.prompt_logprobs, out);
  }
  out += '}';
}

void append_openai_line(const RowResult& result, const OpenAiLines& lines, std::string& out) {
  put(out, R"({{"id": "batch_req_{}", "custom_id": {}, )", result.row, string_or_null(result.id));
  if (result.finish_reason == FinishReason::error) {
    put(out, R"("response": null, "error": {{"code": "invalid_request", "message": {}}}}})",
        json_string(result.error));
    return;
  }
  const bool chat = result.endpoint == Endpoint::chat_completions;
  put(out,
      R"("response": {{"status_code": 200, "request_id": "{0}", "body": {{"id": "{1}-{0}", "object": "{2}", )"
      R"("created": {3}, "model": {4}, "choices": [{{"index": 0, )",
      result.row, chat ? "chatcmpl" : "cmpl", chat ? "chat.completion" : "text_completion", lines.created,
      json_string(lines.model));
  if (chat)
    put(out, R"("message": {{"role": "assistant", "content": {}}}, "logprobs": )", json_string(result.text));
  else
    put(out, R"("text": {}, "logprobs": )", json_string(result.text));
  if (result.logprobs.empty())
    out += "null";
  else if (chat)
    put_chat_logprobs(result, out);
  else
    put_completion_logprobs(result, out);
  if (!result.prompt_logprobs.empty()) {
    out += R"(, "prompt_logprobs": )";
    put_floats(result.prompt_logprobs, out);
  }
  const size_t completion = result.token_ids.size();
  put(out,
      R"(, "finish_reason": "{}"}}], "usage": {{"prompt_tokens": {}, "completion_tokens": {}, )"
      R"("total_tokens": {}}}}}}}, "error": null}})",
      name_of(result.finish_reason), result.prompt_length, completion,
      static_cast<size_t>(result.prompt_length) + completion);
}

JsonlResults::JsonlResults(const std::filesystem::path& path)
    : path_(path), file_(open_file(path, O_WRONLY | O_CREAT | O_TRUNC)) {}

void JsonlResults::end_line() {
  buffer_ += '\n';
  if (buffer_.size() < kBufferBytes) return;
  write_all(file_.get(), buffer_, path_);
  buffer_.clear();
}

void JsonlResults::finish() {
  write_all(file_.get(), buffer_, path_);
  buffer_.clear();
  sync_file(file_.get(), path_);
}

}  // namespace moerun
