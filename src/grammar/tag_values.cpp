#include "grammar/tag_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "grammar/json_schema.h"
#include "moerun/error.h"
#include "text/tool_schema.h"

namespace moerun {

namespace {

using Json = nlohmann::ordered_json;
using Types = std::set<std::string>;

constexpr size_t kLongestPattern = 2000;  // as of schemas (json_schema.cpp)

/// Leaves `<` out of what a pattern's characters and classes match.
class LessThanOut {
 public:
  explicit LessThanOut(std::string_view pattern) : pattern_(pattern) {}

  std::string take() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      if (c == '[') {
        char_class();
      } else if (c == '\\') {
        escape();
      } else {
        if (c == '<') refuse();
        ++at_;
        if (c == '.')
          out_ += "[^<\\n\\r]";
        else
          out_ += c;
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse() const {
    throw BadInput(fmt::format("the pattern \"{}\", whose texts may have a <: that begins a tag", pattern_));
  }

  void escape() {
    const std::string_view whole = pattern_.substr(at_, 2);
    at_ += whole.size();
    const char what = whole.back();
    if (what == 'x' || what == 'u' || what == 'c') refuse();
    if (what == 'S' || what == 'W' || what == 'D')
      out_ += fmt::format("[^\\{}<]", static_cast<char>(what - 'A' + 'a'));
    else
      out_ += whole;
  }

  /// A member of a class, which may be the beginning of a range.
  std::string_view member() {
    const std::string_view one = pattern_.substr(at_, pattern_[at_] == '\\' ? 2 : 1);
    at_ += one.size();
    if (one.size() == 2 && std::string_view("xucSWD").find(one[1]) != std::string_view::npos) refuse();
    return one;
  }

  void char_class() {
    const bool negated = pattern_.substr(at_).starts_with("[^");
    at_ += negated ? 2 : 1;
    out_ += negated ? "[^<" : "[";
    while (at_ < pattern_.size() && pattern_[at_] != ']') {
      const std::string_view first = member();
      const bool range = at_ + 1 < pattern_.size() && pattern_[at_] == '-' && pattern_[at_ + 1] != ']';
      if (!range) {
        if (first == "<" && !negated) refuse();
        out_ += first;
        continue;
      }
      ++at_;
      add_range(first, member(), negated);
    }
    ++at_;
    out_ += ']';
  }

  void add_range(std::string_view first, std::string_view last, bool negated) {
    const auto code = [](std::string_view one) { return static_cast<unsigned char>(one.back()); };
    const bool has = code(first) <= '<' && (code(last) >= '<' || code(last) >= 0x80);
    if (!has || negated) {
      out_ += fmt::format("{}-{}", first, last);
      return;
    }
    if (code(first) < '<') out_ += code(first) == ';' ? ";" : fmt::format("{}-;", first);
    if (code(last) > '<') out_ += code(last) == '=' ? "=" : fmt::format("=-{}", last);
    if (code(first) == '<' && code(last) == '<') refuse();
  }

  std::string_view pattern_;
  size_t at_ = 0;
  std::string out_;
};

/// Those that JSON texts are held to as well, in their plain form; others say nothing here.
const std::map<std::string, std::string>& patterns_of_formats() {
  static const std::string kDate = "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])",
                           kTime =
                               "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,6})?"
                               "(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])",
                           kByte = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
  static const std::map<std::string, std::string> patterns{
      {"date", kDate},
      {"time", kTime},
      {"date-time", kDate + "T" + kTime},
      {"uuid", "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"},
      {"ipv4", fmt::format("({0}\\.){{3}}{0}", kByte)},
      {"email", "[A-Za-z0-9_%+-]+(\\.[A-Za-z0-9_%+-]+)*@[A-Za-z0-9-]+(\\.[A-Za-z0-9-]+)+"}};
  return patterns;
}

/// A format of texts of a schema, or null where any text is one.
Json text_format(const Json& schema) {
  const Json* const least = find_member(schema, "minLength");
  const Json* const most = find_member(schema, "maxLength");
  const Json* const pattern = find_member(schema, "pattern");
  const bool bounded = (least && *least != 0) || most;
  if (pattern && bounded) throw BadInput("a pattern and a length at once");
  if (pattern) {
    const std::string plain = without_less_than(pattern->get<std::string>());
    if (written_out(plain) > kLongestPattern)
      throw BadInput(fmt::format("a pattern of more than {} characters", kLongestPattern));
    return regex_format(plain);
  }
  if (bounded)
    return regex_format(fmt::format("[^<]{{{},{}}}", least ? least->dump() : "0", most ? most->dump() : ""));
  const Json* const format = find_member(schema, "format");
  const auto known =
      patterns_of_formats().find(format && format->is_string() ? format->get<std::string>() : "");
  return known == patterns_of_formats().end() ? Json() : regex_format(known->second);
}

/// JSON, with what it may refer to.
Json json_format(Json schema, const Json& root) {
  for (const char* const name : {"$defs", "definitions"})
    if (const Json* const defs = find_member(root, name)) schema[name] = *defs;
  return {{"type", "json_schema"}, {"json_schema", std::move(schema)}};
}

/// Whether any value of its type will do, so that a text that reads as one is one.
bool is_unbounded(const Json& schema) {
  const std::string type = schema.value("type", "");
  if (type != "integer" && type != "number") return type == "null" || type == "boolean";
  const auto has = [&](const char* name) { return schema.contains(name); };
  return !has("minimum") && !has("maximum") && !has("exclusiveMinimum") && !has("exclusiveMaximum") &&
         !has("multipleOf");
}

Json const_value(const Json& value, const Types& types, std::string_view end_tag, TagValue& out) {
  if (!value.is_string()) return const_format(value.dump());
  const auto& text = value.get_ref<const std::string&>();
  if (text.empty() && types.size() == 1) return const_format("");
  const bool opens =
      (text[0] == '{' && types.contains("object")) || (text[0] == '[' && types.contains("array"));
  if (text.find(end_tag) != std::string::npos || opens ||
      Json::parse(value_between_tags(text, types), nullptr, false) != value)
    throw BadInput(fmt::format("the text {}, which would read as something else", value.dump()));
  out.needs_own_lines |= text.starts_with('\n') || text.ends_with('\n');
  return const_format(text);
}

}  // namespace

std::string without_less_than(std::string_view pattern) { return LessThanOut(pattern).take(); }

Json const_format(std::string_view text) { return {{"type", "const_string"}, {"value", text}}; }

Json regex_format(const std::string& pattern) { return {{"type", "regex"}, {"pattern", pattern}}; }

TagValue tag_value_of(const Json& schema, const Json& root, std::string_view end_tag) {
  const std::vector<Json> alternatives = alternatives_of(schema, root);
  const Types types = types_of_alternatives(alternatives);
  const auto is_text = [](const Json& one) { return one.value("type", "") == "string"; };
  const auto says_nothing = [](const Json& one) { return !one.contains("type") && !one.contains("const"); };
  const bool texts = std::any_of(alternatives.begin(), alternatives.end(), is_text);
  // Where nothing is said any text is right, and is read as one.
  if (std::any_of(alternatives.begin(), alternatives.end(), says_nothing)) {
    if (!types.empty()) throw BadInput("a value of some type that may be anything else too");
    return TagValue{.any_text = true};
  }
  TagValue out;
  Json formats = Json::array();
  for (const Json& one : alternatives) {
    if (const Json* const value = find_member(one, "const")) {
      if (texts && !value->is_string() && !value->is_null())
        throw BadInput("a text that may also be one of some other values: it could read as another");
      formats.push_back(const_value(*value, types, end_tag, out));
    } else if (!is_text(one)) {
      if (texts && !is_unbounded(one))
        throw BadInput(
            fmt::format("a text that may also be of type {}: it could read as another than is allowed",
                        one.value("type", "")));
      formats.push_back(json_format(one, root));
    } else if (Json format = text_format(one); format.is_null()) {
      out.any_text = true;
    } else {
      out.needs_own_lines = true;
      formats.push_back(std::move(format));
    }
  }
  if (out.any_text) return TagValue{.any_text = true};
  out.format = formats.size() == 1 ? Json(formats[0]) : Json{{"type", "or"}, {"elements", formats}};
  return out;
}

}  // namespace moerun
