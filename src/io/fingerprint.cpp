#include "io/fingerprint.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace moerun {

namespace {

std::string shown(const std::string* value) {
  if (!value) return "absent";
  return value->empty() ? "\"\"" : *value;
}

}  // namespace

const std::string* find(const Fingerprint& fingerprint, const std::string& name) {
  const auto entry = std::find_if(fingerprint.begin(), fingerprint.end(),
                                  [&](const auto& candidate) { return candidate.first == name; });
  return entry == fingerprint.end() ? nullptr : &entry->second;
}

nlohmann::ordered_json to_json(const Fingerprint& fingerprint) {
  auto json = nlohmann::ordered_json::array();
  for (const auto& [name, value] : fingerprint) json.push_back({name, value});
  return json;
}

Fingerprint fingerprint_from_json(const nlohmann::ordered_json& json) {
  Fingerprint fingerprint;
  for (const auto& entry : json)
    fingerprint.emplace_back(entry.at(0).get<std::string>(), entry.at(1).get<std::string>());
  return fingerprint;
}

std::vector<std::string> differences(const Fingerprint& before, const Fingerprint& now) {
  std::vector<std::string> result;
  const auto compare = [&](const std::string& name) {
    const std::string* old_value = find(before, name);
    const std::string* new_value = find(now, name);
    if (old_value && new_value && *old_value == *new_value) return;
    result.push_back(fmt::format("{} was {} and is now {}", name, shown(old_value), shown(new_value)));
  };
  for (const auto& entry : now) compare(entry.first);
  for (const auto& entry : before)
    if (!find(now, entry.first)) compare(entry.first);
  return result;
}

}  // namespace moerun
