#include "text/tokenize_command.h"

#include <fmt/format.h>

#include <array>
#include <istream>
#include <nlohmann/json.hpp>
#include <ostream>

#include "moerun/error.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace moerun {
namespace {

using nlohmann::json;

constexpr int kMaxNesting = 128;

/// Some of what is done with a document recurses, so its depth is bounded while it is read.
json parse_line(std::string_view raw) {
  return json::parse(raw, [](int depth, json::parse_event_t, json&) {
    if (depth > kMaxNesting) throw BadInput(fmt::format("nested more than {} deep", kMaxNesting));
    return true;
  });
}

/// The ids of a line, refusing keys that would go unread.
std::vector<int32_t> ids_of(std::string_view raw, Tokenizer& tokenizer, const ChatTemplate& chat_template) {
  const json line = parse_line(raw);
  if (!line.is_object()) throw BadInput("not a JSON object");
  const bool has_messages = line.contains("messages");
  if (line.contains("text") == has_messages) throw BadInput("give either \"text\" or \"messages\"");
  for (const auto& [key, value] : line.items())
    if (key != "text" && !(has_messages && (key == "messages" || key == "tools" || key == "enable_thinking")))
      throw BadInput(
          fmt::format("the key \"{}\" is not known{}", key, has_messages ? "" : " beside \"text\""));
  if (has_messages) return tokenizer.encode(chat_template.render(raw));
  if (!line["text"].is_string()) throw BadInput("\"text\" is not a string");
  return tokenizer.encode_prompt(line["text"].get_ref<const std::string&>());
}

}  // namespace

int tokenize_main(const std::string& model_dir, std::istream& in, std::ostream& out) {
  Tokenizer tokenizer = Tokenizer::load(model_dir);
  for (const std::string& note : tokenizer.notes()) fmt::print(stderr, "moerun: {}\n", note);
  const ChatTemplate chat_template = ChatTemplate::load(model_dir);
  ExitCode exit_code = ExitCode::ok;
  std::string raw;
  for (int64_t number = 1; std::getline(in, raw); ++number) {
    try {
      const std::vector<int32_t> ids = ids_of(raw, tokenizer, chat_template);
      out << fmt::format("{{\"ids\": [{}]}}\n", fmt::join(ids, ", "));
    } catch (const std::exception& e) {
      // The message may quote the line's own bytes, which need not be UTF-8.
      const json error(fmt::format("line {}: {}", number, e.what()));
      out << fmt::format("{{\"error\": {}}}\n", error.dump(-1, ' ', false, json::error_handler_t::replace));
      exit_code = ExitCode::row_errors;
    }
  }
  if (!out.flush()) throw Error("the output of tokenize cannot be written");
  return static_cast<int>(exit_code);
}

}  // namespace moerun
