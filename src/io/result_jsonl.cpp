#include "io/result_jsonl.h"

#include <fmt/format.h>

#include <algorithm>

#include "io/directory.h"
#include "io/durable_file.h"
#include "io/json_text.h"

namespace moerun {

namespace {

constexpr size_t kBufferBytes = 1 << 20;

using json_text::json_string;
using json_text::put;
using json_text::put_float;
using json_text::put_floats;
using json_text::put_list;
using json_text::string_or_null;

size_t num_top(const RowResult& result) { return static_cast<size_t>(std::max(result.num_top_logprobs, 0)); }

void put_id(const RowResult& result, std::string& out) {
  out += result.id_kind == IdKind::integer ? result.id : string_or_null(result.id);
}

}  // namespace

void append_result_line(const RowResult& result, std::string& out) {
  put(out, R"({{"row": {}, "id": )", result.row);
  put_id(result, out);
  put(out, R"(, "prompt_length": {}, "token_ids": )", result.prompt_length);
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
