#include "text/tokenize_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <istream>
#include <nlohmann/json.hpp>
#include <ostream>

#include "moerun/error.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace moerun {
namespace {

using nlohmann::json;

constexpr std::string_view kConversation[] = {
    "messages", "tools", "documents", "enable_thinking", "chat_template_kwargs", "add_generation_prompt"};

constexpr size_t kMostLineBytes = size_t{64} << 20;
constexpr size_t kMostParts = size_t{1} << 22;  // keys, values and brackets: some hundred MB
constexpr int kMaxNesting = 128;

/// The line as an object whose keys are all read; throws for others. Some of what is done with a document
/// recurses, so its depth is bounded while it is read.
json parsed(const std::string& raw) {
  size_t parts = 0;
  json line = json::parse(raw, [&](int around, json::parse_event_t event, json&) {
    const bool opens =
        event == json::parse_event_t::object_start || event == json::parse_event_t::array_start;
    if (around + opens > kMaxNesting) throw BadInput(fmt::format("nested more than {} deep", kMaxNesting));
    if (++parts > kMostParts) throw BadInput(fmt::format("more than {} keys and values", kMostParts));
    return true;
  });
  if (!line.is_object()) throw BadInput("not a JSON object");
  const bool has_messages = line.contains("messages");
  if (line.contains("text") == has_messages) throw BadInput("give either \"text\" or \"messages\"");
  for (const auto& [key, value] : line.items()) {
    const bool known =
        std::find(std::begin(kConversation), std::end(kConversation), key) != std::end(kConversation);
    if (key != "text" && !(has_messages && known))
      throw BadInput(
          fmt::format("the key \"{}\" is not known{}", key, has_messages ? "" : " beside \"text\""));
  }
  return line;
}

std::vector<int32_t> ids_of(const std::string& raw, Tokenizer& tokenizer, const ChatTemplate& chat_template) {
  const json line = parsed(raw);
  if (line.contains("messages")) return tokenizer.encode(chat_template.render(raw));
  if (!line["text"].is_string()) throw BadInput("\"text\" is not a string");
  return tokenizer.encode_prompt(line["text"].get_ref<const std::string&>());
}

std::string quoted(const std::string& text) {
  // A message may quote the line's own bytes, which need not be UTF-8.
  return json(text).dump(-1, ' ', false, json::error_handler_t::replace);
}

/// The next line, of which no more is kept than tells that it is too long; false at the end.
bool next_line(std::istream& in, std::string& line) {
  line.clear();
  std::streambuf& bytes = *in.rdbuf();
  int c = bytes.sbumpc();
  if (c == EOF) return false;
  for (; c != EOF && c != '\n'; c = bytes.sbumpc())
    if (line.size() <= kMostLineBytes) line.push_back(static_cast<char>(c));
  return true;
}

/// Answers each line with a line: `answer`'s, or its fault as `fault_of` words it.
int each_line(std::istream& in, std::ostream& out,
              const std::function<std::string(const std::string&)>& answer,
              const std::function<std::string(int64_t, const std::string&)>& fault_of) {
  ExitCode exit_code = ExitCode::ok;
  std::string raw;
  for (int64_t number = 1; next_line(in, raw); ++number) {
    try {
      if (raw.size() > kMostLineBytes)
        throw BadInput(fmt::format("the line is longer than {} MiB", kMostLineBytes >> 20));
      out << answer(raw) << '\n';
    } catch (const std::exception& error) {
      out << fmt::format("{{\"error\": {}}}\n", quoted(fault_of(number, error.what())));
      exit_code = ExitCode::row_errors;
    }
  }
  if (!out.flush()) throw Error("the output of tokenize cannot be written");
  return static_cast<int>(exit_code);
}

}  // namespace

int tokenize_main(const std::string& model_dir, std::istream& in, std::ostream& out) {
  Tokenizer tokenizer = Tokenizer::load(model_dir);
  for (const std::string& note : tokenizer.notes()) fmt::print(stderr, "moerun: {}\n", note);
  const ChatTemplate chat_template = ChatTemplate::load(model_dir, job_start_time());
  return each_line(
      in, out,
      [&](const std::string& raw) {
        return fmt::format("{{\"ids\": [{}]}}", fmt::join(ids_of(raw, tokenizer, chat_template), ", "));
      },
      [](int64_t number, const std::string& fault) { return fmt::format("line {}: {}", number, fault); });
}

int render_main(const std::string& model_dir, std::istream& in, std::ostream& out) {
  const ChatTemplate chat_template = ChatTemplate::load(model_dir, job_start_time());
  if (!chat_template.fault().empty()) throw BadInput(chat_template.fault());
  return each_line(
      in, out,
      [&](const std::string& raw) {
        if (!parsed(raw).contains("messages")) throw BadInput("give \"messages\"");
        return fmt::format("{{\"text\": {}}}", quoted(chat_template.render(raw)));
      },
      [](int64_t, const std::string& fault) { return fault; });
}

}  // namespace moerun
