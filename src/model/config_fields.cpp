#include "model/config_fields.h"

#include <fmt/format.h>

#include <cmath>

#include "base/shortened.h"

namespace moerun {

using Json = nlohmann::json;

bool integer_within(const Json& value, int64_t least, int64_t most, int64_t& out) {
  if (!value.is_number_integer()) return false;
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) return false;
  const auto number = value.get<int64_t>();
  if (number < least || number > most) return false;
  out = number;
  return true;
}

std::string shown(const Json& value) {
  constexpr size_t kMost = 60;
  return shortened(value.dump(-1, ' ', true), kMost);
}

const Json* Fields::find(const std::string& key) {
  known_.insert(key);
  const auto at = json_.find(key);
  return at == json_.end() || at->is_null() ? nullptr : &*at;
}

bool Fields::fits(const std::string& key, const Json& field, bool right) {
  if (!right) fault(fmt::format("{} has the wrong type: {}", key, shown(field)));
  return right;
}

bool Fields::read(const std::string& key, bool& value) {
  const Json* const field = find(key);
  if (field && fits(key, *field, field->is_boolean())) value = field->get<bool>();
  return field != nullptr;
}

bool Fields::read(const std::string& key, std::string& value) {
  const Json* const field = find(key);
  if (field && fits(key, *field, field->is_string())) value = field->get<std::string>();
  return field != nullptr;
}

bool Fields::read(const std::string& key, double& value) {
  const Json* const field = find(key);
  if (field && fits(key, *field, field->is_number())) value = field->get<double>();
  return field != nullptr;
}

bool Fields::read(const std::string& key, std::vector<int64_t>& value) {
  const Json* const field = find(key);
  if (!field || !fits(key, *field, field->is_array())) return field != nullptr;
  value.clear();
  for (const Json& entry : *field) {
    int64_t number = 0;
    if (integer_within(entry, INT64_MIN, INT64_MAX, number)) {
      value.push_back(number);
      continue;
    }
    fault(fmt::format("{} must hold integers", key));
    break;
  }
  return true;
}

bool Fields::read(const std::string& key, int64_t& value, int64_t least, int64_t most) {
  const Json* const field = find(key);
  if (!field || !fits(key, *field, field->is_number_integer())) return field != nullptr;
  if (integer_within(*field, least, most, value)) return true;
  int64_t number = 0;
  if (integer_within(*field, INT64_MIN, least - 1, number))
    fault(fmt::format("{} is {}, and must be at least {}", key, number, least));
  else
    fault(fmt::format("{} is {}, and must be at most {}", key, shown(*field), most));
  return true;
}

void Fields::require(const std::string& key, int64_t& value, int64_t least, int64_t most) {
  if (!read(key, value, least, most)) fault(fmt::format("{} is missing", key));
}

void Fields::expect(const std::string& key, const Json& only, std::string_view what) {
  const Json* const field = find(key);
  if (field && *field != only) fault(fmt::format("{} is {}, and {}", key, shown(*field), what));
}

void Fields::fault(const std::string& text) { faults_.push_back(fmt::format("{}: {}", name_, text)); }

Fields Fields::inner(const std::string& key, const Json& json) const {
  return {json, fmt::format("{}: {}", name_, key), faults_};
}

void Fields::refuse_unknown(const std::set<std::string_view>& harmless) {
  for (const auto& [key, value] : json_.items())
    if (!known_.contains(key) && !value.is_null() && !harmless.contains(key))
      fault(fmt::format("field {} ({}) is not understood, and might change the answers", key, shown(value)));
}

}  // namespace moerun
