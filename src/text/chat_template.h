#pragma once
#include <ctime>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "text/jinja/template.h"
#include "text/tool_calls.h"

namespace moerun {

/// What strftime_now() told templates, by the format they asked with.
using TemplateDates = std::map<std::string, std::string>;

/// A checkpoint's chat templates with its special tokens. Immutable: any thread may render.
class ChatTemplate {
 public:
  /// Reads MODEL_DIR/chat_template.jinja and additional_chat_templates/NAME.jinja, or where there are none
  /// `chat_template` of tokenizer_config.json, a text or a list of named ones; special tokens from
  /// tokenizer_config.json and special_tokens_map.json, as transformers 5 does. What is absent or wrong is no
  /// fault yet: prompts and token ids need no template. `now`: the time that templates are told, as UTC.
  static ChatTemplate load(const std::string& model_dir, std::time_t now);
  /// `jinja` is a template's text, `name` how messages call where it stands.
  static ChatTemplate from_text(std::string_view jinja, const std::string& name, std::time_t now = 0);

  /// Empty when render() works; else why it does not for any conversation, and what to give instead.
  const std::string& fault() const { return fault_; }
  /// Whether a template names a variable.
  bool mentions(std::string_view variable) const;
  /// The format of function calls that the template for conversations with tools tells of.
  ToolFormat tool_format() const;
  /// SHA-256 (hex) of all that decides what conversations become, but for the time.
  std::string checksum() const;

  /// The prompt of {"messages": [...], "tools"?, "documents"?, "add_generation_prompt"? (true),
  /// "enable_thinking"?, "chat_template_kwargs"?: {any variables}} (JSON): the template as Hugging Face's
  /// `apply_chat_template` runs it, on the messages as transformers 5.24 hands them over (chat_messages.h).
  /// Of several templates the one is taken that is called `tool_use` where there are tools, else `default`.
  /// Throws BadInput: fault(), what is wrong with the request, the template's own words where it raised an
  /// exception, or what went wrong in it with its line. `dates`: where what the template was told of the time
  /// goes.
  std::string render(std::string_view request, TemplateDates* dates = nullptr) const;

 private:
  struct Named {
    std::string place;  // file, for messages
    std::string text;
    std::shared_ptr<const jinja::Template> parsed;  // null: `fault` says why
    std::string fault;
  };
  void add(const std::string& name, std::string place, std::string text);
  void add_file(const std::string& name, const std::string& path);
  void add_from_config(const nlohmann::json& config, const std::string& path);
  void read_folder(const std::string& model_dir);
  const Named& choose(bool tools) const;

  std::map<std::string, Named> templates_;
  std::map<std::string, std::string> special_tokens_;
  std::time_t now_ = 0;
  std::string fault_;
};

/// When a job starts, for templates that ask for the date: SOURCE_DATE_EPOCH where it is set (seconds since
/// 1970, https://reproducible-builds.org/specs/source-date-epoch), else now. Throws BadInput where it is no
/// number.
std::time_t job_start_time();

}  // namespace moerun
