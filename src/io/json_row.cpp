#include "io/json_row.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "io/row_reader.h"
#include "job/form_fields.h"
#include "job/nearest.h"
#include "job/sampling_fields.h"
#include "moerun/error.h"

namespace moerun {
namespace {

/// A text, or a list of OpenAI's content parts that are all text: joined by newlines, as vLLM joins them for
/// templates that take a text. What is wrong is returned.
std::string flatten_content(Json& content) {
  if (!content.is_array()) return "";
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    const Json& part = content[i];
    const Json type = part.is_object() ? part.value("type", Json()) : Json();
    if (part.is_object() && !(type == "text"))
      return fmt::format("content[{}] has the type {}, and this program takes parts of type \"text\" alone",
                         i, shown(type));
    const Json words = part.is_object() ? part.value("text", Json()) : part;
    if (!words.is_string())
      return fmt::format("content[{}] {}", i, must_be("{\"type\": \"text\", \"text\": …}", part));
    if (i > 0) text += '\n';
    text += words.get_ref<const std::string&>();
  }
  content = std::move(text);
  return "";
}

/// A number that may have been a whole one beyond 64 bits: the parser gives those as the nearest double, and
/// a template would write other digits.
std::optional<double> too_large_number(const Json& value) {
  if (value.is_number_float() && std::abs(value.get<double>()) >= 0x1p63) return value.get<double>();
  if (value.is_structured())
    for (const Json& member : value)
      if (const auto found = too_large_number(member)) return found;
  return std::nullopt;
}

/// Whether the conversation asks for thoughts.
void read_thinking(const Json& from, PromptRecord& record) {
  using Thinking = SamplingParams::Thinking;
  Json said = from.value("enable_thinking", Json());
  const Json kwargs = from.value("chat_template_kwargs", Json());
  if (said.is_null() && kwargs.is_object()) said = kwargs.value("enable_thinking", Json());
  record.sampling.thinking = said == true ? Thinking::on : said == false ? Thinking::off : Thinking::unsaid;
}

/// vLLM's names for `structured_outputs`. A row asks for one form.
bool read_guided_field(const std::string& name, const Json& value, PromptRecord& record) {
  const std::vector<std::string>& names = guided_names();
  if (std::find(names.begin(), names.end(), name) == names.end()) return false;
  const std::string wrong = read_guided(name, value, record.sampling);
  if (!wrong.empty()) add_fault(record, fmt::format("{} {}", name, wrong));
  return true;
}

void check_one_form(const Json& given, PromptRecord& record) {
  std::vector<std::string> names = guided_names();
  names.insert(names.end(), {"structured_outputs", "response_format"});
  std::erase_if(names, [&](const std::string& name) { return !given.contains(name); });
  if (names.size() > 1)
    add_fault(record, fmt::format("{} and {} ask for two forms of one answer", names[0], names[1]));
}

}  // namespace

void read_prompt(const Json& value, PromptRecord& record) {
  if (!value.is_string()) return add_fault(record, "prompt " + must_be("a text", value));
  record.prompt = value.get<std::string>();
  check_prompt_text(record);
}

void read_prompt_token_ids(const Json& value, int64_t vocab_size, PromptRecord& record) {
  const IntegerRange any{INT64_MIN, INT64_MAX};
  std::vector<int64_t> ids;
  const auto read = [&](const Json& one) { return any.read(one, ids.emplace_back()); };
  if (!value.is_array() || !std::all_of(value.begin(), value.end(), read))
    return add_fault(record, "prompt_token_ids " + must_be("a list of token ids", value));
  set_prompt_tokens(record, ids, vocab_size);
}

void read_conversation(const Json& from, PromptRecord& record) {
  Json messages = from["messages"];
  const auto is_message = [](const Json& one) {
    return one.is_object() && one.contains("role") && one["role"].is_string();
  };
  if (!messages.is_array() || messages.empty() || !std::all_of(messages.begin(), messages.end(), is_message))
    return add_fault(record, "messages " + must_be("a list of objects with a role", messages));
  for (size_t i = 0; i < messages.size(); ++i)
    if (messages[i].contains("content"))
      if (const std::string wrong = flatten_content(messages[i]["content"]); !wrong.empty())
        add_fault(record, fmt::format("messages[{}].{}", i, wrong));
  Json request = Json::object();
  request["messages"] = std::move(messages);
  const auto take = [&](const char* name, bool (Json::*is_kind)() const noexcept, const char* kind) {
    const Json value = from.value(name, Json());
    if (value.is_null()) return;
    if (!(value.*is_kind)()) add_fault(record, fmt::format("{} {}", name, must_be(kind, value)));
    request[name] = value;
  };
  take("tools", &Json::is_array, "a list");
  take("documents", &Json::is_array, "a list");
  take("add_generation_prompt", &Json::is_boolean, "true or false");
  take("enable_thinking", &Json::is_boolean, "true or false");
  take("chat_template_kwargs", &Json::is_object, "an object");
  if (const auto number = too_large_number(request))
    add_fault(
        record,
        fmt::format("the conversation holds the number {}, whose digits are lost here: write it as a text",
                    *number));
  record.messages = request.dump();
  read_thinking(from, record);
}

const std::vector<std::string>& conversation_fields() {
  static const std::vector<std::string> names{
      "messages", "tools", "documents", "add_generation_prompt", "enable_thinking", "chat_template_kwargs"};
  return names;
}

bool read_sampling_field(const std::string& name, const Json& value, PromptRecord& record) {
  if (read_guided_field(name, value, record)) return true;
  const Field<SamplingParams>* field = find_sampling_field(name);
  if (!field) return false;
  const std::string wrong = field->read(value, record.sampling);
  if (!wrong.empty()) add_fault(record, fmt::format("{} {}", name, wrong));
  record.sampling.own_seed |= name == "seed";
  return true;
}

std::vector<std::string> sampling_field_names() {
  std::vector<std::string> names;
  for (const auto& field : sampling_fields()) names.push_back(field.name);
  return names;
}

void add_unknown(const std::string& where, const std::string& name, const std::vector<std::string>& known,
                 PromptRecord& record) {
  const std::string best = nearest(name, known);
  // A hint helps where a letter or two are wrong; the nearest of all names is nonsense otherwise.
  const size_t most = std::min<size_t>(2, name.size() / 3);
  if (edit_distance(name.substr(0, 256), best) <= most)
    return add_fault(record,
                     fmt::format("there is no field {}; did you mean \"{}\"?", shown(where + name), best));
  add_fault(record, fmt::format("there is no field {}, and it might change the answer: leave it out",
                                shown(where + name)));
}

void read_id(const Json& id, const char* name, PromptRecord& record) {
  if (id.is_string() && !id.get_ref<const std::string&>().empty()) {
    record.id = id.get<std::string>();
    return check_id(record);
  }
  if (!id.is_number_integer())
    return add_fault(record, fmt::format("{} {}", name,
                                         must_be("a text that is not empty or an integer from "
                                                 "-9223372036854775808 to 18446744073709551615 without point "
                                                 "or exponent",
                                                 id)));
  record.id = id.dump();
  record.id_kind = IdKind::integer;
}

void check_row_sampling(const Json& given, int64_t vocab_size, PromptRecord& record) {
  if (const Contradiction wrong = contradiction(record.sampling); !wrong.what.empty())
    add_fault(record, wrong.what);
  if (!record.sampling.scores_prompt()) {  // also a job's that the row takes away: then these go with it
    for (const char* name : {"prompt_logprobs_start", "prompt_is_greedy"})
      if (given.contains(name) && given[name] != 0 && given[name] != false)
        add_fault(record, fmt::format("{} needs prompt_logprobs: true", name));
    record.sampling.prompt_logprobs_start = 0;
    record.sampling.prompt_is_greedy = false;
  }
  check_one_form(given, record);
  // The job's are looked at once, with the job.
  if (const Contradiction wrong = outside_vocabulary(record.sampling, vocab_size);
      given.contains(wrong.option))
    add_fault(record, wrong.what);
}

void read_plain_row(JsonLine read, int64_t vocab_size, PromptRecord& record) {
  Json& line = read.value;
  static const std::vector<std::string> kOwn = [] {
    std::vector<std::string> names{"prompt", "prompt_token_ids", "id"};
    names.insert(names.end(), conversation_fields().begin(), conversation_fields().end());
    return names;
  }();
  drop_nulls(line);
  for (const auto& [name, value] : line.items()) {
    if (std::find(kOwn.begin(), kOwn.end(), name) != kOwn.end() || read_sampling_field(name, value, record))
      continue;
    std::vector<std::string> known = kOwn;
    for (const std::string& option : sampling_field_names()) known.push_back(option);
    add_unknown("", name, known, record);
  }
  if (line.contains("id")) read_id(line["id"], "id", record);
  if (line.contains("prompt") + line.contains("prompt_token_ids") + line.contains("messages") != 1)
    add_fault(record, "a row has exactly one of prompt, prompt_token_ids and messages");
  if (line.contains("prompt")) read_prompt(line["prompt"], record);
  if (read.prompt_token_ids)
    set_prompt_tokens(record, *read.prompt_token_ids, vocab_size);
  else if (line.contains("prompt_token_ids"))
    read_prompt_token_ids(line["prompt_token_ids"], vocab_size, record);
  if (line.contains("messages"))
    read_conversation(line, record);
  else
    for (const std::string& name : conversation_fields())
      if (line.contains(name)) add_fault(record, name + " belongs beside messages");
  check_row_sampling(line, vocab_size, record);
}

void drop_nulls(Json& object) {
  auto kept = Json::object();
  auto& from = static_cast<std::vector<Json::object_t::value_type>&>(object.get_ref<Json::object_t&>());
  auto& to = static_cast<std::vector<Json::object_t::value_type>&>(kept.get_ref<Json::object_t&>());
  for (auto& [name, value] : from)
    if (!value.is_null()) to.emplace_back(name, std::move(value));
  object = std::move(kept);
}

void read_id_of_bad_line(const Json& line, const char* name, PromptRecord& record) {
  if (!line.is_object() || !line.contains(name)) return;
  PromptRecord labelled;
  read_id(line[name], name, labelled);
  record.id = std::move(labelled.id);
  record.id_kind = labelled.id_kind;
}

}  // namespace moerun
