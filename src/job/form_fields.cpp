#include "job/form_fields.h"

#include <algorithm>

namespace moerun {
namespace {

using Kind = AnswerForm::Kind;

constexpr size_t kMostBytes = size_t{1} << 20, kMostChoices = 4096;

std::string set_form(Kind kind, std::string text, SamplingParams& target) {
  if (text.size() > kMostBytes)
    return fmt::format("has {} bytes, and at most {} are taken", text.size(), kMostBytes);
  target.form = {kind, std::move(text)};
  return "";
}

bool is_text(const Json& value) { return value.is_string() && !value.get_ref<const std::string&>().empty(); }

/// A schema as an object, true or false, or as JSON in a text.
std::string read_schema(const Json& value, SamplingParams& target) {
  Json schema = value;
  if (value.is_string()) schema = Json::parse(value.get_ref<const std::string&>(), nullptr, false);
  if (!schema.is_object() && !schema.is_boolean()) return must_be("a JSON schema", value);
  return set_form(Kind::json_schema, schema.dump(), target);
}

std::string read_text(Kind kind, const char* what, const Json& value, SamplingParams& target) {
  if (!is_text(value)) return must_be(what, value);
  return set_form(kind, value.get<std::string>(), target);
}

std::string read_regex(const Json& value, SamplingParams& target) {
  return read_text(Kind::regex, "a regular expression", value, target);
}

std::string read_grammar(const Json& value, SamplingParams& target) {
  return read_text(Kind::grammar, "a grammar (EBNF, whose rule root is the answer)", value, target);
}

std::string read_choice(const Json& value, SamplingParams& target) {
  if (!value.is_array() || value.empty() || !std::all_of(value.begin(), value.end(), is_text))
    return must_be("a list of texts that are not empty", value);
  if (value.size() > kMostChoices)
    return fmt::format("has {} texts, and at most {} are taken", value.size(), kMostChoices);
  return set_form(Kind::choice, value.dump(), target);
}

std::string read_json_object(const Json& value, SamplingParams& target) {
  if (value != true) return must_be("true", value);
  return set_form(Kind::json_object, "", target);
}

struct Member {
  const char* name;
  Kind kind;
  std::string (*read)(const Json&, SamplingParams&);
};
constexpr Member kMembers[] = {{"json", Kind::json_schema, read_schema},
                               {"regex", Kind::regex, read_regex},
                               {"choice", Kind::choice, read_choice},
                               {"grammar", Kind::grammar, read_grammar},
                               {"json_object", Kind::json_object, read_json_object}};

const Member* member_of(const std::string& name) {
  const auto* const found = std::find_if(std::begin(kMembers), std::end(kMembers),
                                         [&](const Member& member) { return name == member.name; });
  return found == std::end(kMembers) ? nullptr : found;
}

std::string read_structured_outputs(const Json& value, SamplingParams& target) {
  target.form = {};
  if (value.is_null()) return "";
  const Member* const member =
      value.is_object() && value.size() == 1 ? member_of(value.begin().key()) : nullptr;
  if (!member) return must_be("an object with one of json, regex, choice, grammar and json_object", value);
  const std::string wrong = member->read(value.begin().value(), target);
  return wrong.empty() ? "" : fmt::format("{}: {}", member->name, wrong);
}

Json write_structured_outputs(const SamplingParams& from) {
  const AnswerForm& form = from.form;
  for (const Member& member : kMembers) {
    if (member.kind != form.kind) continue;
    const bool is_json = form.kind == Kind::json_schema || form.kind == Kind::choice;
    Json object = Json::object();
    object[member.name] = form.kind == Kind::json_object ? Json(true)
                          : is_json                      ? Json::parse(form.text)
                                                         : Json(form.text);
    return object;
  }
  return {};
}

}  // namespace

Field<SamplingParams> structured_outputs_field() {
  return {"structured_outputs", read_structured_outputs, write_structured_outputs, true};
}

const std::vector<std::string>& guided_names() {
  static const std::vector<std::string> names{"guided_json", "guided_regex", "guided_choice",
                                              "guided_grammar"};
  return names;
}

std::string read_guided(const std::string& name, const Json& value, SamplingParams& target) {
  return member_of(name.substr(name.find('_') + 1))->read(value, target);
}

std::string read_response_format(const Json& value, SamplingParams& target) {
  const Json type = value.is_object() ? value.value("type", Json()) : Json();
  target.form = {};
  if (type == "text") return "";
  if (type == "json_object") return set_form(Kind::json_object, "", target);
  if (type != "json_schema")
    return must_be("an object with the type \"text\", \"json_object\" or \"json_schema\"", value);
  const Json format = value.value("json_schema", Json());
  if (!format.is_object() || !format.contains("schema"))
    return "json_schema " + must_be("an object with a schema", format);
  const std::string wrong = read_schema(format["schema"], target);
  return wrong.empty() ? "" : "json_schema.schema " + wrong;
}

}  // namespace moerun
