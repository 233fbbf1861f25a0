#include "text/component.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/shortened.h"
#include "moerun/error.h"
#include "text/unicode.h"

namespace moerun {
namespace {

using nlohmann::json;

/// As much of a value as a message can bear.
std::string shown(const json& value) {
  return shortened(value.dump(-1, ' ', false, json::error_handler_t::replace), 100);
}

}  // namespace

void Component::fail(const std::string& what) const {
  throw BadInput(fmt::format("{}: {} {}", *file_, where_, what));
}

void fail_unknown_type(const Component& component, const std::vector<std::string_view>& known) {
  component.fail(
      fmt::format("is of type {}; this program knows {}", component.type(), fmt::join(known, ", ")));
}

bool Component::absent() const { return json_->is_null(); }

const json& Component::member(const char* key) const {
  static const json null;
  if (!json_->is_object()) return null;
  const auto it = json_->find(key);
  return it == json_->end() ? null : *it;
}

std::string Component::type() const {
  const json& type = member("type");
  if (!type.is_string()) fail("has no type");
  return type;
}

std::vector<Component> Component::list(const char* key) const {
  const json& list = member(key);
  if (!list.is_array()) fail(fmt::format("is a {} without {}", type(), key));
  if (list.size() > kMostInList)
    fail(fmt::format("has {} {}, and at most {} are read", list.size(), key, kMostInList));
  if (lists_ == kMostLists) fail(fmt::format("is the {}rd {} in another", kMostLists + 1, type()));
  std::vector<Component> components;
  for (const json& one : list) {
    components.emplace_back(one, fmt::format("{}[{}]", where_, components.size()), *file_);
    components.back().lists_ = lists_ + 1;
  }
  return components;
}

void Component::known_keys(std::initializer_list<std::string_view> keys) const {
  for (const auto& [key, value] : json_->items())
    if (key != "type" && std::find(keys.begin(), keys.end(), key) == keys.end())
      fail(fmt::format("has the key '{}', which this program does not know", key));
}

bool Component::flag(const char* key, bool otherwise) const {
  const json& value = member(key);
  if (value.is_null()) return otherwise;
  if (!value.is_boolean()) fail(fmt::format("has {} = {}, not true or false", key, shown(value)));
  return value;
}

std::string Component::text(const char* key) const {
  const json& value = member(key);
  if (!value.is_string()) fail(fmt::format("has {} = {}, not a text", key, shown(value)));
  return value;
}

std::string Component::character(const char* key) const {
  std::string value = text(key);
  if (value.empty() || utf8_length(static_cast<uint8_t>(value[0])) != value.size())
    fail(fmt::format("has {} = '{}', not one character", key, value));
  return value;
}

int64_t Component::number(const char* key, int64_t most) const {
  const json& value = member(key);
  if (!value.is_number_integer() || value < 0 || value > most)
    fail(fmt::format("has {} = {}, not a number from 0 to {}", key, shown(value), most));
  return value;
}

}  // namespace moerun
