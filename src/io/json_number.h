#pragma once
#include <fmt/format.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <utility>

#include "moerun/error.h"

namespace moerun {

/// The member `key` of an object, a whole number that a T holds; throws Error for all else, and nlohmann's
/// exception where there is none. nlohmann's own get() narrows in silence, and of a float beyond the type it
/// is undefined what it makes.
template <class T, class Object>
T whole_number(const Object& object, const char* key) {
  const auto& value = object.at(key);
  if (value.is_number_unsigned()) {
    if (const auto number = value.template get<uint64_t>(); std::in_range<T>(number))
      return static_cast<T>(number);
  } else if (value.is_number_integer()) {
    if (const auto number = value.template get<int64_t>(); std::in_range<T>(number))
      return static_cast<T>(number);
  }
  throw Error(fmt::format("{} is no whole number of its range", key));
}

}  // namespace moerun
