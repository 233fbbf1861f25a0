#pragma once
#include <string_view>

#include "text/jinja/runtime.h"

namespace moerun::jinja {

/// + - * / // % ** as Python has them. Throws TypeError's words, and Undefined's own.
Value arithmetic(Runtime& runtime, std::string_view op, const Value& a, const Value& b);
Value negate(const Value& value, bool minus);
/// == != < <= > >= in `not in`
bool compare(Runtime& runtime, std::string_view op, const Value& a, const Value& b);
/// `item in container`
bool contains(Runtime& runtime, const Value& container, const Value& item);
/// The texts joined; where one is markup the others are escaped.
Value concatenate(Runtime& runtime, const std::vector<Value>& parts);

/// `object.name` and `object[index]` as jinja2's sandbox finds them: an attribute first, or an item first.
/// What is not there is undefined.
Value get_attribute(Runtime& runtime, const Value& object, std::string_view name);
Value get_item(Runtime& runtime, const Value& object, const Value& index);
/// object[start:stop:step]; None: left out. Throws TypeError's words where Python does.
Value get_slice(Runtime& runtime, const Value& object, const Value& start, const Value& stop,
                const Value& step);

/// Where `needle` begins in `text` from `from` on; npos: nowhere. Linear.
size_t find_text(std::string_view text, std::string_view needle, size_t from = 0);

/// Throws the message of an undefined value.
void require_defined(const Value& value);

}  // namespace moerun::jinja
