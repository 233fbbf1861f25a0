#pragma once
#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moerun {

/// Values of jobs (YAML) and rows (JSON) come as one type, in the order they were written in.
using Json = nlohmann::ordered_json;

/// A named value of a T: its reading with every check, and its writing, beside each other.
template <class T>
struct Field {
  std::string name;
  /// Sets the value; returns what is wrong with it ("must be …, not …") or an empty string.
  std::function<std::string(const Json&, T&)> read;
  std::function<Json(const T&)> write;
  bool nested = false;  ///< the value may be a mapping, or hold lists and mappings
};

/// A value as a message shows it: JSON, cut when long.
std::string shown(const Json& value);
/// `must be WHAT, not VALUE`.
std::string must_be(std::string_view what, const Json& value);

/// Whole numbers and real ones, checked. `3.0` is a whole number; a bool is none.
struct IntegerRange {
  int64_t least, most;
  std::string words() const;
  bool read(const Json& value, int64_t& out) const;
};
struct NumberRange {
  double least, most;
  bool above_least = false;  ///< least itself is out
  std::string words() const;
  bool read(const Json& value, double& out) const;
};

/// The shortest decimal that gives the same float back, as a number.
Json json_of(float value);

// Each maker takes `get`, a generic lambda from a T (const or not) to a reference to the value.

template <class T, class Get>
Field<T> integer(std::string name, Get get, IntegerRange range) {
  return {std::move(name),
          [=](const Json& value, T& target) {
            int64_t number = 0;
            if (!range.read(value, number)) return must_be("an integer " + range.words(), value);
            auto& out = get(target);
            out = static_cast<std::decay_t<decltype(out)>>(number);
            return std::string();
          },
          [=](const T& target) { return Json(get(target)); }};
}

/// A whole number, or one word that stands for a value outside of the range.
template <class T, class Get>
Field<T> integer_or(std::string name, Get get, IntegerRange range, const Json& word, int64_t meaning) {
  return {std::move(name),
          [=](const Json& value, T& target) {
            auto& out = get(target);
            using Value = std::decay_t<decltype(out)>;
            int64_t number = meaning;
            if (value != word && !range.read(value, number))
              return must_be(fmt::format("{} or an integer {}",
                                         word.is_string() ? word.template get<std::string>() : word.dump(),
                                         range.words()),
                             value);
            out = static_cast<Value>(number);
            return std::string();
          },
          [=](const T& target) { return get(target) == meaning ? word : Json(get(target)); }};
}

template <class T, class Get>
Field<T> number(std::string name, Get get, NumberRange range) {
  return {std::move(name),
          [=](const Json& value, T& target) {
            double number = 0;
            if (!range.read(value, number)) return must_be("a number " + range.words(), value);
            auto& out = get(target);
            out = static_cast<std::decay_t<decltype(out)>>(number);
            // What is above its least value as written must be so in float32 too.
            if (range.above_least && static_cast<double>(out) <= range.least)
              return must_be("a number " + range.words() + " as float32 has it", value);
            return std::string();
          },
          [=](const T& target) {
            const auto value = get(target);
            if constexpr (std::is_same_v<decltype(value), const float>)
              return json_of(value);
            else
              return Json(value);
          }};
}

template <class T, class Get>
Field<T> seed(std::string name, Get get) {
  return {std::move(name),
          [=](const Json& value, T& target) {
            if (!value.is_number_unsigned())
              return must_be("an integer from 0 to 18446744073709551615", value);
            get(target) = value.get<uint64_t>();
            return std::string();
          },
          [=](const T& target) { return Json(get(target)); }};
}

template <class T, class Get>
Field<T> boolean(std::string name, Get get) {
  return {std::move(name),
          [=](const Json& value, T& target) {
            if (!value.is_boolean()) return must_be("true or false", value);
            get(target) = value.get<bool>();
            return std::string();
          },
          [=](const T& target) { return Json(get(target)); }};
}

/// A text that is not empty, or null for none.
template <class T, class Get>
Field<T> text_or_none(std::string name, Get get) {
  return {std::move(name),
          [=](const Json& value, T& target) {
            if (!value.is_null() && !(value.is_string() && !value.get_ref<const std::string&>().empty()))
              return must_be("a text (in quotes where it looks like a number)", value);
            get(target) = value.is_null() ? "" : value.get<std::string>();
            return std::string();
          },
          [=](const T& target) { return get(target).empty() ? Json() : Json(get(target)); }};
}

/// One of some words; the first word of a value is the one that is written.
template <class T, class Get, class Value>
Field<T> choice(std::string name, Get get, std::vector<std::pair<std::string, Value>> words) {
  return {std::move(name),
          [=](const Json& value, T& target) {
            std::vector<std::string> known;
            for (const auto& [word, meaning] : words) {
              if (value == word) {
                get(target) = meaning;
                return std::string();
              }
              known.push_back(word);
            }
            return must_be(fmt::format("one of {}", fmt::join(known, ", ")), value);
          },
          [=](const T& target) {
            for (const auto& [word, meaning] : words)
              if (get(target) == meaning) return Json(word);
            return Json();
          }};
}

}  // namespace moerun
