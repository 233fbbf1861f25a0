#pragma once
#include <string>
#include <string_view>

namespace moerun {

/// A checkpoint's chat template, rendered with its generation prompt. Templates are Jinja programs; this
/// program has no Jinja and renders those that it knows by their exact text, in C++. Immutable: any thread
/// may render.
class ChatTemplate {
 public:
  /// Reads MODEL_DIR/chat_template.jinja, else `chat_template` of MODEL_DIR/tokenizer_config.json. A template
  /// that is absent or unknown is no fault yet: prompts and token ids need none.
  static ChatTemplate load(const std::string& model_dir);
  /// `jinja` is the template's text, `name` how messages call where it stands.
  static ChatTemplate from_text(std::string_view jinja, const std::string& name);

  /// Empty when render() works; else why it does not, and what to give instead.
  const std::string& fault() const { return fault_; }

  /// The prompt of {"messages": [...], "tools"?: [...], "enable_thinking"?: bool} (JSON), exactly as Hugging
  /// Face's `apply_chat_template(..., add_generation_prompt=True)` renders it. Throws BadInput with fault(),
  /// or naming what is wrong with the messages; what Jinja would render as nothing (an unknown role, a
  /// missing content) is refused too.
  std::string render(std::string_view request) const;

 private:
  explicit ChatTemplate(std::string fault) : fault_(std::move(fault)) {}

  std::string fault_;
};

}  // namespace moerun
