// Calls of functions that answers are held to, in each format: what a grammar takes is what is read.
#include "grammar/tool_grammar.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "grammar/grammar.h"
#include "grammar/tag_values.h"
#include "moerun/error.h"
#include "tests/catch.h"
#include "tests/unit/text_fixture.h"

using namespace moerun;

namespace {

constexpr int32_t kVocab = 4096, kEnd = 4093;

/// A form with one function f of these parameters, and with g that is not strict and has any.
std::string form_of(const std::string& mode, const std::string& parameters, bool parallel = true) {
  return R"({"mode": ")" + mode + R"(", "parallel": )" + (parallel ? "true" : "false") +
         R"(, "tools": [{"type": "function", "function": {"name": "f", "strict": true, "parameters": )" +
         parameters + R"(}}, {"type": "function", "function": {"name": "g"}}]})";
}

constexpr char kParameters[] = R"({"type": "object", "required": ["city", "days"], "properties": {
  "city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 9},
  "code": {"type": "string", "pattern": "^[^a-z]{2,3}$"}, "unit": {"enum": ["c", "f", null]},
  "tags": {"type": "array", "items": {"type": "string"}}}})";

/// Whether an answer of this form may be this text.
bool takes(const std::string& form, ToolFormat format, const std::string& text) {
  static Tokenizer tokenizer = Tokenizer::load(kTinyModel);
  GrammarCompiler compiler({&tokenizer, kVocab, {kEnd}, {}, format}, 1);
  GrammarMatcher matcher(compiler.compile_calls(form), {kEnd});
  std::vector<uint32_t> mask(kVocab / 32);
  const auto may = [&](int32_t id) { return (mask[static_cast<size_t>(id / 32)] >> id % 32 & 1) != 0; };
  for (const int32_t id : tokenizer.encode(text)) {
    matcher.fill(mask);
    const bool allowed = may(id);
    CHECK(matcher.accept(id) == allowed);
    if (!allowed) return false;
  }
  matcher.fill(mask);
  return may(kEnd);
}

/// "NAME(ARGUMENTS) …" of what is read; "-" where nothing is.
std::string read(const std::string& form, const std::string& text) {
  const auto found = find_tool_calls(text, ToolFunctions(form));
  std::string out;
  for (const ToolCall& call : found ? found->calls : std::vector<ToolCall>{{"-", ""}})
    out += call.name + call.arguments;
  return out;
}

std::string fault(const std::string& parameters, ToolFormat format, const std::string& mode = "required") {
  return calls_fault(form_of(mode, parameters), format);
}

std::string parameter_fault(const std::string& schema) {
  return fault(R"({"type": "object", "properties": {"x": )" + schema + "}}", ToolFormat::coder);
}

/// Calls of f in a format: of these values as JSON, of others, of none.
struct Spelled {
  ToolFormat format;
  std::string call, others, too_many_days, free;
};
const std::vector<Spelled>& spelled() {
  static const std::vector<Spelled> all{
      {ToolFormat::hermes,
       "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"city\": \"a </tool_call> \\\"b\", \"days\": 3, "
       "\"tags\": [\"x\"]}}\n"
       "</tool_call>",
       "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"city\": \"a\", \"days\": 3, \"code\": \"Q7\", "
       "\"unit\": null}}\n"
       "</tool_call>",
       "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"city\": \"a\", \"days\": 30}}\n</tool_call>",
       "<tool_call>\n{\"name\": \"g\", \"arguments\": {\"any\": [1]}}\n</tool_call>"},
      {ToolFormat::coder,
       "<tool_call>\n<function=f>\n<parameter=city>\na </tool_call> \"b\n</parameter>\n<parameter=days>\n3\n"
       "</parameter>\n<parameter=tags>\n[\"x\"]\n</parameter>\n</function>\n</tool_call>",
       "<tool_call>\n<function=f>\n<parameter=city>\na\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
       "<parameter=code>\nQ7\n</parameter>\n<parameter=unit>\nnull\n</parameter>\n</function>\n</tool_call>",
       "<tool_call>\n<function=f>\n<parameter=city>\na\n</parameter>\n<parameter=days>\n30\n</parameter>\n"
       "</function>\n</tool_call>",
       "<tool_call>\n<function=g>\n<parameter=any>\n[1]\n</parameter>\n</function>\n</tool_call>"},
      {ToolFormat::glm,
       "<tool_call>f\n<arg_key>city</arg_key>\n<arg_value>a </tool_call> "
       "\"b</arg_value>\n<arg_key>days</arg_key>\n"
       "<arg_value>3</arg_value>\n<arg_key>tags</arg_key>\n<arg_value>[\"x\"]</arg_value>\n</tool_call>",
       "<tool_call>f<arg_key>city</arg_key><arg_value>a</arg_value><arg_key>days</arg_key><arg_value>3</"
       "arg_value>"
       "<arg_key>code</arg_key><arg_value>Q7</arg_value><arg_key>unit</arg_key><arg_value>null</arg_value>"
       "</tool_call>",
       "<tool_call>f\n<arg_key>city</arg_key>\n<arg_value>a</arg_value>\n<arg_key>days</"
       "arg_key>\n<arg_value>30"
       "</arg_value>\n</tool_call>",
       "<tool_call>g\n<arg_key>any</arg_key>\n<arg_value>[1]</arg_value>\n</tool_call>"},
      {ToolFormat::minimax,
       "<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"city\">a </tool_call> \"b</parameter>\n"
       "<parameter name=\"days\">3</parameter>\n<parameter name=\"tags\">[\"x\"]</parameter>\n</invoke>\n"
       "</minimax:tool_call>",
       "<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"city\">a</parameter>\n<parameter "
       "name=\"days\">3</parameter>\n<parameter name=\"code\">\nQ7\n</parameter>\n<parameter "
       "name=\"unit\">null"
       "</parameter>\n</invoke>\n</minimax:tool_call>",
       "<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"city\">a</parameter>\n<parameter "
       "name=\"days\">30</parameter>\n</invoke>\n</minimax:tool_call>",
       "<minimax:tool_call>\n<invoke name=\"g\">\n<parameter name=\"any\">[1]</parameter>\n</invoke>\n"
       "</minimax:tool_call>"}};
  return all;
}

}  // namespace

TEST_CASE("a form of calls is a family's own, and what it takes is read as its arguments", "[tool_grammar]") {
  if (!has_grammars()) return;
  for (const Spelled& one : spelled()) {
    CAPTURE(one.call);
    const std::string required = form_of("required", kParameters), free = form_of("auto", kParameters);
    CHECK(takes(required, one.format, one.call));
    CHECK(takes(required, one.format, one.others));
    CHECK(nlohmann::json::parse(read(required, one.call).substr(1)) ==
          nlohmann::json({{"city", "a </tool_call> \"b"}, {"days", 3}, {"tags", {"x"}}}));
    CHECK(nlohmann::json::parse(read(required, one.others).substr(1)) ==
          nlohmann::json({{"city", "a"}, {"days", 3}, {"code", "Q7"}, {"unit", nullptr}}));
    CHECK(takes(required, one.format, "\n\n" + one.call));
    CHECK_FALSE(takes(required, one.format, one.too_many_days));
    CHECK_FALSE(takes(required, one.format, "Sure. " + one.call));
    CHECK_FALSE(takes(required, one.format, one.call + " Done."));
    CHECK_FALSE(takes(required, one.format, ""));
    // Parameters are those of g where an answer must be a call: none.
    CHECK_FALSE(takes(required, one.format, one.free));

    CHECK(takes(free, one.format, "No call, <tool, at\tall."));
    CHECK(takes(free, one.format, "Sure. " + one.call + " And\n" + one.others + " Done."));
    CHECK(takes(free, one.format, one.free));
    CHECK(read(free, one.free).starts_with("g"));
    CHECK_FALSE(takes(free, one.format, "Sure. " + one.too_many_days));
    CHECK_FALSE(takes(form_of("auto", kParameters, false), one.format, one.call + one.call));
    CHECK(takes(form_of("auto", kParameters, false), one.format, "Sure. " + one.call));
    CHECK_FALSE(takes(form_of("required", kParameters, false), one.format, one.call + "\n" + one.call));
    if (one.format != ToolFormat::minimax) CHECK(takes(required, one.format, one.call + "\n" + one.others));
  }
}

TEST_CASE("a model's format of calls is what its chat template shows", "[tool_grammar]") {
  CHECK(tool_format_of("<tool_call>\n{\"name\": ") == ToolFormat::hermes);
  CHECK(tool_format_of("<tool_call>\n<function=x>") == ToolFormat::coder);
  CHECK(tool_format_of("<tool_call>{{ name }}<arg_key>") == ToolFormat::glm);
  CHECK(tool_format_of("<minimax:tool_call>") == ToolFormat::minimax);
  CHECK(tool_format_of("<think>") == ToolFormat::none);
  if (!has_grammars()) return;
  CHECK(fault("{}", ToolFormat::none)
            .starts_with(
                "answers cannot be held to calls of functions: the model's chat template tells of none"));
}

TEST_CASE("parameters that a format cannot hold answers to are refused by name", "[tool_grammar]") {
  if (!has_grammars()) return;
  const std::string of_f = "answers cannot be held to calls of the function f: ";
  const std::string of_x = of_f + "the model's format of calls cannot hold its parameter \"x\" to ";
  CHECK(fault(R"({"type": "array"})", ToolFormat::hermes) ==
        of_f + "its parameters must be of the type object");
  CHECK(fault(R"({"anyOf": []})", ToolFormat::hermes) ==
        of_f + "its parameters must be an object's schema, without anyOf at its top");
  CHECK(fault(R"({"type": "object", "properties": {"x": {"not": {}}}})", ToolFormat::hermes) ==
        of_f + "the JSON schema cannot be used: answers cannot be held to not (at #/properties/x)");
  CHECK(fault(R"({"type": "object", "properties": {"a>b": {"type": "null"}}})", ToolFormat::coder) ==
        of_f + "its parameter \"a>b\" has a name that the model's format of calls cannot spell");
  CHECK(fault(R"({"type": "object", "properties": {"a>b": {"type": "null"}}})", ToolFormat::hermes).empty());
  CHECK(fault(R"({"type": "object", "properties": {"a": {"$ref": "#"}}})", ToolFormat::glm) ==
        of_f + "the model's format of calls needs a $ref to point into $defs");
  CHECK(parameter_fault(R"({"anyOf": [{"type": "string"}, {"type": "object", "properties": {}}]})") ==
        of_x + "a text that may also be of type object: it could read as another than is allowed");
  CHECK(parameter_fault(R"({"anyOf": [{"type": "string"}, {"type": "integer", "maximum": 3}]})")
            .starts_with(of_x + "a text that may also be of type integer"));
  CHECK(parameter_fault(R"({"type": ["string", "integer", "null", "boolean"]})").empty());
  CHECK(parameter_fault(R"({"enum": ["1", 1]})") ==
        of_x + "the text \"1\", which would read as something else");
  CHECK(parameter_fault(R"({"enum": ["</parameter>"]})").starts_with(of_x + "the text \"</parameter>\""));
  CHECK(parameter_fault(R"({"type": "string", "pattern": "a<b"})") ==
        of_x + "the pattern \"a<b\", whose texts may have a <: that begins a tag");
  // What is not held to anything in the end is no fault, whatever its schema is.
  CHECK(fault(R"({"type": "object", "properties": {"x": {"type": "string"}}})", ToolFormat::coder, "auto")
            .empty());
}

TEST_CASE("patterns without what begins a tag", "[tool_grammar]") {
  CHECK(without_less_than("^[^a-z]{1,4}.\\S\\W\\D\\d\\.$") ==
        "^[^<a-z]{1,4}[^<\\n\\r][^\\s<][^\\w<][^\\d<]\\d\\.$");
  CHECK(without_less_than("[ -~]") == "[ -;=-~]");
  CHECK(without_less_than("[a<-z]") == "[a=-z]");
  CHECK(without_less_than("[;-=]") == "[;=]");
  CHECK(without_less_than("[a-]") == "[a-]");
  for (const char* const pattern : {"<", "[<]", "[<-<]", "\\x3c", "[\\S]", "\\u003c"})
    CHECK_THROWS_AS(without_less_than(pattern), BadInput);
}
