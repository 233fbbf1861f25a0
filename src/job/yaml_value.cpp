#include "job/yaml_value.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <optional>
#include <string_view>

#include "moerun/error.h"

namespace moerun {
namespace {

constexpr std::array<std::string_view, 4> kNull{"null", "Null", "NULL", "~"};
constexpr std::array<std::string_view, 3> kTrue{"true", "True", "TRUE"};
constexpr std::array<std::string_view, 3> kFalse{"false", "False", "FALSE"};

template <size_t n>
bool is_one_of(std::string_view text, const std::array<std::string_view, n>& words) {
  return std::find(words.begin(), words.end(), text) != words.end();
}

template <class T>
std::optional<T> parse_whole(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Json number_or_text(const std::string& scalar) {
  std::string_view digits = scalar;
  if (digits.starts_with('+')) digits.remove_prefix(1);
  const size_t first = digits.starts_with('-') ? 1 : 0;
  // from_chars reads "inf" and "nan" too, which are texts here: no key takes them.
  const bool numeric = digits.size() > first &&
                       (std::isdigit(static_cast<unsigned char>(digits[first])) || digits[first] == '.');
  if (!numeric) return scalar;
  if (const auto value = parse_whole<uint64_t>(digits)) return *value;
  if (const auto value = parse_whole<int64_t>(digits)) return *value;
  if (const auto value = parse_whole<double>(digits)) return *value;
  return scalar;
}

Json value_of_scalar(const YamlNode& node) {
  const std::string& scalar = node.scalar;
  if (node.tag != "?") return scalar;  // quoted, or tagged !!str
  if (is_one_of(scalar, kTrue)) return true;
  if (is_one_of(scalar, kFalse)) return false;
  return number_or_text(scalar);
}

bool is_written_null(const YamlNode& node, const std::string& text) {
  const auto at = static_cast<size_t>(std::max(node.mark.pos, 0));
  if (at >= text.size()) return false;
  const std::string_view rest = std::string_view(text).substr(at, 4);
  return std::any_of(kNull.begin(), kNull.end(),
                     [&](std::string_view word) { return rest.starts_with(word); });
}

Json object_of_yaml(const YamlNode& node, const std::string& text) {
  Json object = Json::object();
  for (const auto& [name, value] : node.entries) {
    if (!name.is(YamlNode::Kind::scalar)) throw BadInput("has a key that is no word");
    if (object.contains(name.scalar)) throw BadInput(fmt::format("has {} twice", shown(name.scalar)));
    object[name.scalar] = value_of_yaml(value, text, true);
  }
  return object;
}

}  // namespace

Json value_of_yaml(const YamlNode& node, const std::string& text, bool nested) {
  switch (node.kind) {
    case YamlNode::Kind::map:
      if (!nested) throw BadInput("must be a value, not a section");
      return object_of_yaml(node, text);
    case YamlNode::Kind::null:
      if (!is_written_null(node, text)) throw BadInput("has no value");
      return {};
    case YamlNode::Kind::scalar:
      return value_of_scalar(node);
    case YamlNode::Kind::list:
      break;
  }
  Json list = Json::array();
  for (const YamlNode& item : node.items) {
    if (!nested && !item.is(YamlNode::Kind::scalar)) throw BadInput("must be a list of texts or numbers");
    list.push_back(value_of_yaml(item, text, nested));
  }
  return list;
}

std::string yaml_of_value(const Json& value) {
  if (!value.is_string()) return value.dump();
  const auto& text = value.get_ref<const std::string&>();
  const auto is_plain = [](unsigned char c) {
    return std::isalnum(c) || c == '_' || c == '-' || c == '.' || c == '/';
  };
  const bool is_word = !text.empty() && std::isalpha(static_cast<unsigned char>(text[0])) &&
                       std::all_of(text.begin(), text.end(), is_plain);
  const bool is_reserved = is_one_of(text, kNull) || is_one_of(text, kTrue) || is_one_of(text, kFalse);
  return is_word && !is_reserved ? text : value.dump();
}

}  // namespace moerun
