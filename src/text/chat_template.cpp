#include "text/chat_template.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/json_file.h"
#include "moerun/error.h"
#include "text/chat_messages.h"
#include "text/checksum.h"
#include "text/jinja/json.h"

namespace moerun {
namespace {

using nlohmann::json;

constexpr JsonLimits kConfigLimits;
constexpr size_t kMostTemplates = 64;  // of a folder
constexpr std::string_view kInstead = "give `prompt` or `prompt_token_ids` instead of `messages`";

namespace fs = std::filesystem;

bool is_there(const fs::path& path) {
  std::error_code none;
  return fs::exists(path, none);
}

/// The file as a JSON object; an empty one where it is absent. Throws BadInput where it is no such.
json read_object(const std::string& path) {
  if (!is_there(path)) return json::object();
  return parse_json_object(read_text_file(path, kConfigLimits.bytes), path, kConfigLimits);
}

/// `bos_token` and the like: texts, or objects with a `content`.
void take_special_tokens(const json& from, std::map<std::string, std::string>& tokens) {
  for (const auto& [name, value] : from.items()) {
    if (!name.ends_with("_token")) continue;
    if (value.is_string())
      tokens[name] = value;
    else if (value.is_object() && value.contains("content") && value["content"].is_string())
      tokens[name] = value["content"];
  }
}

using Variables = jinja::Variables;
using jinja::Value;

/// The variables of a request, each checked.
class Request {
 public:
  Request(jinja::Runtime& runtime, std::string_view text) {
    try {
      request_ = jinja::from_json(runtime, text);
    } catch (const BadInput& error) {
      throw BadInput(fmt::format("the messages are {}", error.what()));
    }
    if (!request_.dict()) throw BadInput("a conversation is a JSON object with \"messages\"");
    take("messages", Value());
    take("tools", Value());
    take("documents", Value());
    take("add_generation_prompt", Value(true));
    if (const Value* thinking = request_.dict()->find("enable_thinking"); thinking && !thinking->is_none()) {
      if (!thinking->boolean()) throw BadInput("enable_thinking must be true or false");
      variables["enable_thinking"] = *thinking;
    }
    take_more();
    check();
    variables["messages"] = chat_messages(runtime, variables["messages"]);
  }

  Variables variables;
  bool has_tools() const { return !variables.find("tools")->second.is_none(); }

 private:
  void take(const char* name, const Value& otherwise) {
    const Value* given = request_.dict()->find(name);
    variables[name] = given && !given->is_none() ? *given : otherwise;
  }

  /// chat_template_kwargs: what transformers takes beside the conversation.
  void take_more() {
    const Value* more = request_.dict()->find("chat_template_kwargs");
    if (!more || more->is_none()) return;
    if (!more->dict()) throw BadInput("chat_template_kwargs must be an object");
    for (const auto& [key, value] : more->dict()->entries()) {
      const std::string& name = key.string()->text;
      const Value* beside = request_.dict()->find(name);
      if (name == "messages" || (beside && !beside->is_none()))
        throw BadInput(fmt::format("chat_template_kwargs has {}, which stands beside messages", name));
      if (name == "chat_template" || name == "continue_final_message")
        throw BadInput(fmt::format("chat_template_kwargs.{} is not supported", name));
      variables[name] = value;
    }
  }

  static bool is_list(const Value& value) {
    return value.sequence() && value.sequence()->kind == jinja::Sequence::Kind::list;
  }

  void check() const {
    const Value& messages = variables.find("messages")->second;
    if (!is_list(messages)) throw BadInput("messages must be a list");
    const auto& items = messages.sequence()->items;
    if (items.empty()) throw BadInput("messages is empty: a conversation has one message at least");
    for (size_t i = 0; i < items.size(); ++i)
      if (!items[i].dict()) throw BadInput(fmt::format("messages[{}] is not an object", i));
    for (const char* name : {"tools", "documents"}) {
      const Value& value = variables.find(name)->second;
      if (value.is_none()) continue;
      if (!is_list(value)) throw BadInput(fmt::format("{} must be a list", name));
      const auto& parts = value.sequence()->items;
      for (size_t i = 0; i < parts.size(); ++i)
        if (!parts[i].dict()) throw BadInput(fmt::format("{}[{}] is not an object", name, i));
    }
    if (!variables.find("add_generation_prompt")->second.boolean())
      throw BadInput("add_generation_prompt must be true or false");
  }

  Value request_;
};

}  // namespace

void ChatTemplate::add(const std::string& name, std::string place, std::string text) {
  Named& added = templates_[name];
  added = {std::move(place), std::move(text), nullptr, ""};
  try {
    added.parsed = std::make_shared<const jinja::Template>(added.text);
  } catch (const jinja::TemplateError& error) {
    added.fault = fmt::format("the chat template of {}, line {}: {}; {}", added.place, error.line(),
                              error.what(), kInstead);
  }
}

void ChatTemplate::add_file(const std::string& name, const std::string& path) {
  if (templates_.size() == kMostTemplates)
    throw BadInput(
        fmt::format("{} is one chat template more than the {} that are read", path, kMostTemplates));
  try {
    add(name, path, read_text_file(path, jinja::kMaxTemplateBytes));
  } catch (const BadInput& error) {
    templates_[name] = {path, "", nullptr, fmt::format("the chat template {}; {}", error.what(), kInstead)};
  }
}

void ChatTemplate::add_from_config(const json& config, const std::string& path) {
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) {
    fault_ = fmt::format("{} has no chat template: {}", path, kInstead);
  } else if (found->is_string()) {
    add("default", path, *found);
  } else {
    for (const json& one : *found) {
      if (!one.is_object() || !one.contains("name") || !one["name"].is_string() ||
          !one.contains("template") || !one["template"].is_string()) {
        fault_ = fmt::format("chat_template of {} is neither a text nor a list of names and templates: {}",
                             path, kInstead);
        return;
      }
      add(one["name"], fmt::format("{} ('{}')", path, one["name"].get<std::string>()), one["template"]);
    }
  }
}

void ChatTemplate::read_folder(const std::string& model_dir) {
  const std::string jinja_path = model_dir + "/chat_template.jinja",
                    path = model_dir + "/tokenizer_config.json";
  if (is_there(jinja_path)) add_file("default", jinja_path);
  std::error_code none;
  for (const fs::directory_entry& entry :
       fs::directory_iterator(model_dir + "/additional_chat_templates", none))
    if (entry.path().extension() == ".jinja") add_file(entry.path().stem(), entry.path());
  const json config = read_object(path);
  if (templates_.empty()) {
    if (!is_there(path))
      fault_ = fmt::format("{} cannot be opened, so there is no chat template: {}", path, kInstead);
    else
      add_from_config(config, path);
  }
  if (!fault_.empty()) return;
  take_special_tokens(config, special_tokens_);
  if (config.contains("extra_special_tokens") && config["extra_special_tokens"].is_object())
    take_special_tokens(config["extra_special_tokens"], special_tokens_);
  // transformers takes what the map says where the configuration knows no ids of added tokens.
  if (!config.contains("added_tokens_decoder"))
    take_special_tokens(read_object(model_dir + "/special_tokens_map.json"), special_tokens_);
}

ChatTemplate ChatTemplate::load(const std::string& model_dir, std::time_t now) {
  ChatTemplate out;
  out.now_ = now;
  try {
    out.read_folder(model_dir);
  } catch (const BadInput& error) {
    out.fault_ = fmt::format("{}, so conversations cannot be written as the model knows them: {}",
                             error.what(), kInstead);
  }
  return out;
}

ChatTemplate ChatTemplate::from_text(std::string_view jinja, const std::string& name, std::time_t now) {
  ChatTemplate out;
  out.now_ = now;
  out.add("default", name, std::string(jinja));
  return out;
}

bool ChatTemplate::mentions(std::string_view variable) const {
  return std::any_of(templates_.begin(), templates_.end(), [&](const auto& named) {
    return named.second.text.find(variable) != std::string::npos;
  });
}

ToolFormat ChatTemplate::tool_format() const {
  for (const char* const name : {"tool_use", "default"})
    if (const auto found = templates_.find(name); found != templates_.end())
      return tool_format_of(found->second.text);
  return ToolFormat::none;
}

std::string ChatTemplate::checksum() const {
  std::string all;
  const auto append = [&](const std::string& text) { all += fmt::format("{} {}\n", text.size(), text); };
  for (const auto& [name, one] : templates_) {
    append(name);
    append(one.text);
  }
  for (const auto& [name, token] : special_tokens_) {
    append(name);
    append(token);
  }
  return sha256_hex(all);
}

const ChatTemplate::Named& ChatTemplate::choose(bool tools) const {
  auto found = templates_.end();
  if (tools) found = templates_.find("tool_use");
  if (found == templates_.end()) found = templates_.find("default");
  if (found != templates_.end()) return found->second;
  std::vector<std::string> names;
  for (const auto& [name, one] : templates_) names.push_back(name);
  throw BadInput(fmt::format("the model has several chat templates ({}) and none called 'default': {}",
                             fmt::join(names, ", "), kInstead));
}

std::string ChatTemplate::render(std::string_view request, TemplateDates* dates) const {
  if (!fault_.empty()) throw BadInput(fault_);
  jinja::Runtime runtime(now_);
  const Named* chosen = nullptr;
  try {
    Request read(runtime, request);
    chosen = &choose(read.has_tools());
    if (!chosen->parsed) throw BadInput(chosen->fault);
    for (const auto& [name, token] : special_tokens_) read.variables.emplace(name, runtime.string(token));
    std::string text = chosen->parsed->render(runtime, read.variables);
    if (dates) dates->merge(runtime.dates);
    return text;
  } catch (const jinja::TemplateError& error) {
    if (error.kind() == jinja::TemplateError::Kind::raised) throw BadInput(error.what());
    if (!chosen) throw BadInput(fmt::format("the messages: {}", error.what()));
    throw BadInput(
        fmt::format("the chat template of {}, line {}: {}", chosen->place, error.line(), error.what()));
  }
}

std::time_t job_start_time() {
  const char* const given = std::getenv("SOURCE_DATE_EPOCH");
  if (!given || !*given) return std::time(nullptr);
  const std::string_view text(given);
  constexpr int64_t kMost = 253402300799;  // the end of the year 9999
  int64_t seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc() || end != text.data() + text.size() || seconds < 0 || seconds > kMost)
    throw BadInput(fmt::format("SOURCE_DATE_EPOCH must be seconds since 1970, not \"{}\"", text));
  return seconds;
}

}  // namespace moerun
