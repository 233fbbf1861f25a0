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

/// The keys of a line, refusing those that would go unread.
std::string text_of(const json& line, std::string_view raw, const ChatTemplate& chat_template) {
  if (!line.is_object()) throw BadInput("not a JSON object");
  const bool has_messages = line.contains("messages");
  if (line.contains("text") == has_messages) throw BadInput("give either \"text\" or \"messages\"");
  for (const auto& [key, value] : line.items())
    if (key != "text" && !(has_messages && (key == "messages" || key == "tools" || key == "enable_thinking")))
      throw BadInput(
          fmt::format("the key \"{}\" is not known{}", key, has_messages ? "" : " beside \"text\""));
  if (has_messages) return chat_template.render(raw);
  if (!line["text"].is_string()) throw BadInput("\"text\" is not a string");
  return line["text"];
}

}  // namespace

int tokenize_main(const std::string& model_dir, std::istream& in, std::ostream& out) {
  Tokenizer tokenizer = Tokenizer::load(model_dir);
  const ChatTemplate chat_template = ChatTemplate::load(model_dir);
  ExitCode exit_code = ExitCode::ok;
  std::string raw;
  for (int64_t number = 1; std::getline(in, raw); ++number) {
    try {
      const std::vector<int32_t> ids = tokenizer.encode(text_of(json::parse(raw), raw, chat_template));
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
