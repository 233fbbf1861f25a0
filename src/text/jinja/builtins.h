#pragma once
#include <initializer_list>
#include <optional>
#include <string_view>
#include <vector>

#include "text/jinja/runtime.h"

namespace moerun::jinja {

using FilterFunction = Value (*)(Runtime&, const Value& input, const Arguments&);
using TestFunction = bool (*)(Runtime&, const Value& input, const Arguments&);
using MethodFunction = Value (*)(Runtime&, const Value& self, const Arguments&);

/// jinja2's filters and tests by their names, and Python's methods; null for others.
FilterFunction find_filter(std::string_view name);
TestFunction find_test(std::string_view name);
MethodFunction find_string_method(std::string_view name);
MethodFunction find_container_method(const Value& self, std::string_view name);

/// jinja2's and Hugging Face's global functions: `range`, `dict`, `namespace`, `raise_exception`, ...
std::optional<Value> find_global(std::string_view name);

template <class Function>
struct Named {
  std::string_view name;
  Function function;
};

/// The entry of a table that is sorted by name; null when there is none.
template <class Function, size_t kSize>
Function find_in(const Named<Function> (&table)[kSize], std::string_view name) {
  for (const Named<Function>& entry : table)
    if (entry.name == name) return entry.function;
  return nullptr;
}

/// Arguments laid onto a function's parameters, as Python does it.
class Parameters {
 public:
  /// Throws TypeError's words for too many arguments, unknown keywords, values given twice, and fewer than
  /// `required`.
  Parameters(std::string_view function, const Arguments& arguments,
             std::initializer_list<std::string_view> names, size_t required = 0);

  /// Null: not given.
  const Value* find(size_t index) const { return values_[index]; }
  /// Null: not given, or None.
  const Value* given(size_t index) const {
    return find(index) && !find(index)->is_none() ? find(index) : nullptr;
  }
  const Value& operator[](size_t index) const { return *values_[index]; }  ///< of a required one
  bool flag(size_t index, bool otherwise) const { return find(index) ? truth(*find(index)) : otherwise; }
  int64_t integer(size_t index, int64_t otherwise) const;
  std::string text(size_t index, std::string_view otherwise) const;  ///< str() of it

 private:
  std::string_view function_;
  std::vector<const Value*> values_;
};

/// A string's content; throws TypeError's words for other values.
const std::string& require_text(const Value& value, std::string_view what);
int64_t require_integer(const Value& value);

/// jinja2's own way to an attribute of `map(attribute=…)`, `sort(attribute=…)`: "a.0.b", or an index.
Value attribute_path(Runtime& runtime, const Value& value, const Value& path,
                     const Value* otherwise = nullptr);

/// A method bound to its object.
Value bound_method(Value self, std::string_view name, MethodFunction function);

}  // namespace moerun::jinja
