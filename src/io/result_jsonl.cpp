#include "io/result_jsonl.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "io/directory.h"
#include "io/durable_file.h"
#include "io/json_text.h"

namespace moerun {

namespace {

constexpr size_t kBufferBytes = 1 << 20;

using json_text::json_string;
using json_text::put;
using json_text::put_bools;
using json_text::put_float;
using json_text::put_floats;
using json_text::put_list;
using json_text::string_or_null;

size_t num_top(const RowResult& result) { return static_cast<size_t>(std::max(result.num_top_logprobs, 0)); }

void put_id(const RowResult& result, std::string& out) {
  out += result.id_kind == IdKind::integer ? result.id : string_or_null(result.id);
}

void put_top(const std::pair<int32_t, float>* top, size_t count, std::string& out) {
  put_list(count, out, [&](size_t k) {
    put(out, "[{}, ", top[k].first);
    put_float(top[k].second, out);
    out += ']';
  });
}

void put_prompt_top(const RowResult& result, std::string& out) {
  const auto count = static_cast<size_t>(result.num_prompt_top_logprobs);
  put_list(result.prompt_logprobs.size(), out, [&](size_t i) {
    if (std::isnan(result.prompt_logprobs[i]))  // a prompt's first token
      out += "null";
    else
      put_top(&result.prompt_top_logprobs[i * count], count, out);
  });
}

/// What of an answer comes from its tokens alone: the row's, or one of its others.
void put_logprobs(const RowResult& row, const auto& answer, std::string& out) {
  if (!answer.logprobs.empty()) {
    out += R"(, "logprobs": )";
    put_floats(answer.logprobs, out);
  }
  if (num_top(row) == 0) return;
  out += R"(, "top_logprobs": )";
  put_list(answer.top_logprobs.size() / num_top(row), out,
           [&](size_t i) { put_top(&answer.top_logprobs[i * num_top(row)], num_top(row), out); });
}

void put_answer(const auto& answer, std::string& out) {
  out += R"("token_ids": )";
  put_list(answer.token_ids.size(), out, [&](size_t i) { put(out, "{}", answer.token_ids[i]); });
  put(out, R"(, "text": {}, "finish_reason": "{}")", json_string(answer.text), name_of(answer.finish_reason));
}

void put_one_of_several(const RowResult& row, size_t index, const auto& answer, std::string& out) {
  put(out, R"({{"index": {}, )", index);
  put_answer(answer, out);
  put_logprobs(row, answer, out);
  out += '}';
}

}  // namespace

void append_result_line(const RowResult& result, std::string& out) {
  put(out, R"({{"row": {}, "id": )", result.row);
  put_id(result, out);
  put(out, R"(, "prompt_length": {}, )", result.prompt_length);
  if (result.prompt_truncated >= 0) put(out, R"("prompt_truncated": {}, )", result.prompt_truncated);
  if (result.more_answers.empty()) {
    put_answer(result, out);
  } else {
    out += R"("answers": )";
    put_list(1 + result.more_answers.size(), out, [&](size_t index) {
      if (index == 0)
        put_one_of_several(result, index, result, out);
      else
        put_one_of_several(result, index, result.more_answers[index - 1], out);
    });
  }
  put(out, R"(, "error": {})", string_or_null(result.error));
  if (result.more_answers.empty()) put_logprobs(result, result, out);
  if (!result.prompt_logprobs.empty()) {
    out += R"(, "prompt_logprobs": )";
    put_floats(result.prompt_logprobs, out);
  }
  if (result.num_prompt_top_logprobs > 0 && !result.prompt_logprobs.empty()) {
    out += R"(, "prompt_top_logprobs": )";
    put_prompt_top(result, out);
  }
  if (!result.prompt_is_greedy.empty()) {
    out += R"(, "prompt_is_greedy": )";
    put_bools(result.prompt_is_greedy, out);
  }
  out += '}';
}

JsonlResults::JsonlResults(const std::filesystem::path& path)
    : path_(path), file_(Directory(directory_of(path), Directory::Links::followed).create(path.filename())) {}

void JsonlResults::write() {
  write_all(file_.get(), buffer_, path_);
  sum_.update(buffer_);
  bytes_ += buffer_.size();
  buffer_.clear();
}

void JsonlResults::end_line() {
  buffer_ += '\n';
  if (buffer_.size() >= kBufferBytes) write();
}

WrittenFile JsonlResults::finish() {
  write();
  sync_file(file_.get(), path_);
  close_file(file_, path_);
  return {.bytes = bytes_, .sha256 = sum_.hex()};
}

}  // namespace moerun
