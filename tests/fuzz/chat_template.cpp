#include "text/chat_template.h"

#include "tests/fuzz/harness.h"

namespace moerun::fuzz {

/// A template, then (after a NUL) a request.
void read_chat_template(std::string_view bytes) {
  const std::string_view jinja = take_until(bytes, '\0');
  const ChatTemplate chat_template = ChatTemplate::from_text(jinja, "chat_template.jinja");
  chat_template.render(bytes.empty() ? R"({"messages": [{"role": "user", "content": "Hi"}]})" : bytes);
}

/// A request by the tiny model's template.
void read_chat_request(std::string_view bytes) {
  static const ChatTemplate chat_template = ChatTemplate::load("data/tiny-moe", 0);
  chat_template.render(bytes);
}

}  // namespace moerun::fuzz
