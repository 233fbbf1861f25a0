#include "text/written_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <system_error>

#include "text/space.h"

namespace moerun {

namespace {

using nlohmann::json;

/// What becomes of so many bytes of a text: others, or the same.
struct Part {
  size_t count = 1;
  std::optional<std::string> instead = {};
};

/// A JSON text with its parts as in_string(at) and outside(at) have them.
template <class InString, class Outside>
std::string rewritten(std::string_view text, InString in_string, Outside outside) {
  std::string out;
  out.reserve(text.size());
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    if (text[at] == '"') inside = !inside;
    const Part part = inside ? in_string(at) : outside(at);
    out += part.instead ? std::string_view(*part.instead) : text.substr(at, part.count);
    at += part.count;
  }
  return out;
}

std::string with_escapes(std::string_view text) {
  const auto in_string = [&](size_t at) -> Part {
    const auto byte = static_cast<unsigned char>(text[at]);
    if (byte == '\\') return {2};
    if (byte >= 0x20) return {1};
    return {1, fmt::format("\\u{:04x}", byte)};
  };
  return rewritten(text, in_string, [](size_t) -> Part { return {1}; });
}

bool is_beyond_double(std::string_view number) {
  double value = 0;
  const auto read = std::from_chars(number.data(), number.data() + number.size(), value);
  return read.ec == std::errc::result_out_of_range;
}

/// What nlohmann::json cannot hold, replaced by what it can.
std::string as_it_can_be_held(std::string_view text) {
  const auto in_string = [&](size_t at) -> Part {
    if (text[at] != '\\') return {1};
    const std::string_view escape = text.substr(at, 6);
    const bool surrogate =
        escape.size() == 6 && escape[1] == 'u' && (escape[2] == 'd' || escape[2] == 'D') && escape[3] >= '8';
    return surrogate ? Part{escape.size(), "\\ufffd"} : Part{2};
  };
  const auto outside = [&](size_t at) -> Part {
    const size_t end = std::min(text.find_first_not_of("+-.0123456789eE", at), text.size());
    if (end == at) return {1};
    return is_beyond_double(text.substr(at, end - at)) ? Part{end - at, "1e300"} : Part{end - at};
  };
  return rewritten(text, in_string, outside);
}

}  // namespace

WrittenJson read_written_json(std::string_view written) {
  WrittenJson read{with_escapes(written), {}};
  read.value = json::parse(read.text, nullptr, false);
  if (read.value.is_discarded()) read.value = json::parse(as_it_can_be_held(read.text), nullptr, false);
  return read;
}

size_t end_of_json_value(std::string_view text, size_t at) {
  size_t depth = 0;
  for (bool in_string = false; at < text.size(); ++at) {
    const char c = text[at];
    if (in_string) {
      if (c == '\\') ++at;
      if (c == '"') in_string = false;
      if (c == '"' && depth == 0) return at + 1;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      if (depth == 0) return at;
      if (--depth == 0) return at + 1;
    } else if (depth == 0 && (c == ',' || kSpace.find(c) != std::string_view::npos)) {
      return at;
    }
  }
  return text.size();
}

std::string_view json_member(std::string_view object, std::string_view name) {
  std::string_view found;
  for (size_t at = object.find('{') + 1; (at = object.find('"', at)) != std::string_view::npos;) {
    const size_t key_end = end_of_json_value(object, at);
    const json key = read_written_json(object.substr(at, key_end - at)).value;
    const size_t begin = object.find_first_not_of(kSpace, object.find(':', key_end) + 1);
    at = end_of_json_value(object, begin);
    if (key.is_string() && key.get_ref<const std::string&>() == name)
      found = object.substr(begin, at - begin);
  }
  return found;
}

}  // namespace moerun
