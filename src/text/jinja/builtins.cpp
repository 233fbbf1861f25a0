#include "text/jinja/builtins.h"

#include <algorithm>

#include "text/jinja/operators.h"
#include "text/jinja/text.h"

namespace moerun::jinja {
namespace {

class BoundMethod : public Object {
 public:
  BoundMethod(Value self, std::string_view name, MethodFunction function)
      : self_(std::move(self)), name_(name), function_(function) {}
  std::string_view type_name() const override { return "builtin_function_or_method"; }
  std::string text() const override { return fmt::format("<built-in method {}>", name_); }
  bool callable() const override { return true; }
  int depth() const override { return self_.depth() + 1; }
  Value call(Runtime& runtime, const Arguments& arguments) override {
    if (self_.string()) runtime.step(self_.weight());
    return function_(runtime, self_, arguments);
  }

 private:
  Value self_;
  std::string name_;
  MethodFunction function_;
};

bool all_digits(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

}  // namespace

Value bound_method(Value self, std::string_view name, MethodFunction function) {
  return Value(Ref<Object>(std::make_shared<BoundMethod>(std::move(self), name, function)));
}

Parameters::Parameters(std::string_view function, const Arguments& arguments,
                       std::initializer_list<std::string_view> names, size_t required)
    : function_(function), values_(names.size()) {
  if (arguments.positional.size() > names.size())
    throw TemplateError(fmt::format("{}() takes at most {} arguments ({} given)", function, names.size(),
                                    arguments.positional.size()));
  for (size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.keyword) {
    const auto* const found = std::find(names.begin(), names.end(), name);
    if (found == names.end())
      throw TemplateError(fmt::format("{}() got an unexpected keyword argument '{}'", function, name));
    const Value*& place = values_[static_cast<size_t>(found - names.begin())];
    if (place) throw TemplateError(fmt::format("{}() got multiple values for argument '{}'", function, name));
    place = &value;
  }
  for (size_t i = 0; i < required; ++i)
    if (!values_[i])
      throw TemplateError(
          fmt::format("{}() missing a required argument: '{}'", function, *(names.begin() + i)));
}

int64_t Parameters::integer(size_t index, int64_t otherwise) const {
  return find(index) ? require_integer(*find(index)) : otherwise;
}

std::string Parameters::text(size_t index, std::string_view otherwise) const {
  return find(index) ? text_of(*find(index)) : std::string(otherwise);
}

const std::string& require_text(const Value& value, std::string_view what) {
  require_defined(value);
  if (const String* string = value.string()) return string->text;
  throw TemplateError(fmt::format("{} must be str, not {}", what, type_name(value)));
}

int64_t require_integer(const Value& value) {
  require_defined(value);
  const auto integer = value.as_integer();
  if (!integer)
    throw TemplateError(fmt::format("'{}' object cannot be interpreted as an integer", type_name(value)));
  if (!integer->fits()) throw TemplateError("Python int too large to convert to C ssize_t");
  return integer->small();
}

Value attribute_path(Runtime& runtime, const Value& value, const Value& path, const Value* otherwise) {
  const String* text = path.string();
  Value at = value;
  const auto step = [&](const Value& part) {
    at = get_item(runtime, at, part);
    if (otherwise && !otherwise->is_none() && at.undefined()) at = *otherwise;
  };
  if (path.is_none()) return at;
  if (!text) {
    step(path);
    return at;
  }
  for (size_t begin = 0; begin <= text->text.size();) {
    const size_t end = std::min(text->text.find('.', begin), text->text.size());
    const std::string part = text->text.substr(begin, end - begin);
    runtime.step();
    step(all_digits(part) ? Value(Integer::from_digits(part)) : runtime.string(part));
    begin = end + 1;
  }
  return at;
}

}  // namespace moerun::jinja
