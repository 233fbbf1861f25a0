#include "text/jinja/operators.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "text/jinja/builtins.h"
#include "text/jinja/printf.h"
#include "text/jinja/text.h"

namespace moerun::jinja {
namespace {

[[noreturn]] void unsupported(std::string_view op, const Value& a, const Value& b) {
  throw TemplateError(fmt::format("unsupported operand type(s) for {}: '{}' and '{}'",
                                  op == "**" ? "** or pow()" : op, type_name(a), type_name(b)));
}

double as_double(const Value& value) {
  if (const double* floating = value.floating()) return *floating;
  return value.as_integer()->to_double();
}

Value integer_arithmetic(std::string_view op, const Integer& a, const Integer& b) {
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "//") return Value(Integer::floor_divide(a, b));
  if (op == "%") return Value(Integer::modulo(a, b));
  if (op == "**" && !b.is_negative()) return Value(Integer::power(a, b));
  if (b.is_zero()) throw TemplateError("division by zero");
  if (op == "/") return Value(a.to_double() / b.to_double());
  if (a.is_zero()) throw TemplateError("0.0 cannot be raised to a negative power");
  return Value(std::pow(a.to_double(), b.to_double()));
}

/// Python's float modulo: the sign of the divisor.
double float_modulo(double a, double b) {
  const double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  return (rest < 0) != (b < 0) ? rest + b : rest;
}

Value float_arithmetic(std::string_view op, double a, double b) {
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "**") {
    if (a == 0 && b < 0) throw TemplateError("0.0 cannot be raised to a negative power");
    const double power = std::pow(a, b);
    if (std::isinf(power) && std::isfinite(a) && std::isfinite(b))
      throw TemplateError("(34, 'Numerical result out of range')");
    if (std::isnan(power) && !std::isnan(a) && !std::isnan(b))
      throw TemplateError("a negative number to a fractional power is no real number");
    return Value(power);
  }
  if (b == 0)
    throw TemplateError(op == "/"   ? "float division by zero"
                        : op == "%" ? "float modulo"
                                    : "float floor division by zero");
  if (op == "/") return Value(a / b);
  if (op == "%") return Value(float_modulo(a, b));
  const double rest = float_modulo(a, b);
  const double quotient = (a - rest) / b;
  const double whole = std::floor(quotient);
  return Value(quotient - whole > 0.5 ? whole + 1 : whole);
}

Value repeat(Runtime& runtime, const Value& value, const Integer& count) {
  const int64_t times = count.is_negative() ? 0 : count.fits() ? count.small() : INT64_MAX;
  const String* string = value.string();
  const size_t size = string ? string->text.size() : value.sequence()->items.size();
  if (size > 0 && static_cast<uint64_t>(times) > kMaxOutputBytes / (string ? 1 : sizeof(Value)) / size)
    throw TemplateError("a repetition is too long", TemplateError::Kind::limit);
  const auto copies = size > 0 ? times : 0;
  if (string) {
    std::string out;
    out.reserve(size * static_cast<size_t>(copies));
    for (int64_t i = 0; i < copies; ++i) out += string->text;
    return runtime.string(std::move(out), string->markup);
  }
  const std::vector<Value>& items = value.sequence()->items;
  std::vector<Value> out;
  for (int64_t i = 0; i < copies; ++i) out.insert(out.end(), items.begin(), items.end());
  return runtime.sequence(value.sequence()->kind, std::move(out));
}

bool is_list_or_tuple(const Value& value) {
  const Sequence* sequence = value.sequence();
  return sequence && (sequence->kind == Sequence::Kind::list || sequence->kind == Sequence::Kind::tuple);
}

Value add(Runtime& runtime, const Value& a, const Value& b) {
  if (a.string() && b.string()) return concatenate(runtime, {a, b});
  if (is_list_or_tuple(a) && is_list_or_tuple(b) && a.sequence()->kind == b.sequence()->kind) {
    std::vector<Value> items = a.sequence()->items;
    items.insert(items.end(), b.sequence()->items.begin(), b.sequence()->items.end());
    return runtime.sequence(a.sequence()->kind, std::move(items));
  }
  if (a.string())
    throw TemplateError(fmt::format("can only concatenate str (not \"{}\") to str", type_name(b)));
  if (is_list_or_tuple(a))
    throw TemplateError(
        fmt::format("can only concatenate {0} (not \"{1}\") to {0}", type_name(a), type_name(b)));
  unsupported("+", a, b);
}

/// A walk over both, for what compares them.
void charge_comparison(Runtime& runtime, const Value& a, const Value& b) {
  runtime.step(std::min(a.weight(), b.weight()));
}

/// Python's clamping of a slice's bounds: [first, last) by `step`.
std::vector<size_t> slice_indices(size_t size, const Value& start, const Value& stop, const Value& step) {
  const auto bound = [](const Value& value, int64_t otherwise) {
    if (value.is_none()) return otherwise;
    const auto integer = value.as_integer();
    if (!integer) throw TemplateError("slice indices must be integers or None or have an __index__ method");
    return integer->fits() ? integer->small() : integer->is_negative() ? INT64_MIN / 2 : INT64_MAX / 2;
  };
  const auto length = static_cast<int64_t>(size);
  const int64_t by = std::clamp<int64_t>(bound(step, 1), -length - 1, length + 1);
  if (by == 0) {
    if (bound(step, 1) == 0) throw TemplateError("slice step cannot be zero");
    return {};
  }
  const auto clamped = [&](int64_t index) {
    if (index < 0) index = std::max<int64_t>(std::max(index, -length - 1) + length, by < 0 ? -1 : 0);
    return std::min(index, by < 0 ? length - 1 : length);
  };
  const int64_t first = start.is_none() ? (by < 0 ? length - 1 : 0) : clamped(bound(start, 0));
  const int64_t last = stop.is_none() ? (by < 0 ? -1 : length) : clamped(bound(stop, 0));
  std::vector<size_t> out;
  for (int64_t i = first; by < 0 ? i > last : i < last; i += by) out.push_back(static_cast<size_t>(i));
  return out;
}

/// obj[index] where Python has it; none for what raises TypeError or LookupError.
std::optional<Value> subscript(Runtime& runtime, const Value& object, const Value& index) {
  if (const Dict* dict = object.dict()) {
    if ((index.sequence() && index.sequence()->kind != Sequence::Kind::tuple) || index.dict())
      return std::nullopt;
    runtime.step(index.weight());
    const Value* found = dict->find(index);
    return found ? std::optional(*found) : std::nullopt;
  }
  const auto size = length_of(object);
  const auto integer = index.as_integer();
  if (!size || !integer || !integer->fits()) return std::nullopt;
  int64_t at = integer->small();
  if (at < 0) at += static_cast<int64_t>(*size);
  if (at < 0 || static_cast<size_t>(at) >= *size) return std::nullopt;
  if (const String* string = object.string()) {
    runtime.step(object.weight());
    const size_t begin =
        string->ascii ? static_cast<size_t>(at) : byte_of(string->text, static_cast<size_t>(at));
    const std::string_view rest = std::string_view(string->text).substr(begin);
    return runtime.string(std::string(rest.substr(0, byte_of(rest, 1))), string->markup);
  }
  const Sequence* sequence = object.sequence();
  if (!sequence || (sequence->kind != Sequence::Kind::range && !is_list_or_tuple(object)))
    return std::nullopt;
  return sequence->items[static_cast<size_t>(at)];
}

/// getattr(obj, name) where Python has it; unsafe ones are undefined.
std::optional<Value> attribute(Runtime& runtime, const Value& object, std::string_view name) {
  const auto unsafe = [&] {
    return runtime.undefined(
        fmt::format("access to attribute '{}' of '{}' object is unsafe.", name, type_name(object)));
  };
  if (name.size() > 4 && name.starts_with("__") && name.ends_with("__")) return unsafe();
  if (Object* own = object.object()) return own->attribute(runtime, name);
  if (object.string()) {
    const MethodFunction method = find_string_method(name);
    return method ? std::optional(bound_method(object, name, method)) : std::nullopt;
  }
  static constexpr std::string_view kOfList[] = {"append", "clear",  "extend",  "insert",
                                                 "pop",    "remove", "reverse", "sort"};
  static constexpr std::string_view kOfDict[] = {"clear", "pop", "popitem", "setdefault", "update"};
  const auto among = [&](const auto& names) {
    return std::find(std::begin(names), std::end(names), name) != std::end(names);
  };
  if (const Sequence* group = object.sequence(); group && group->label == "group") {
    if (name == "grouper") return group->items[0];
    if (name == "list") return group->items[1];
  }
  const bool list = object.sequence() && object.sequence()->kind == Sequence::Kind::list;
  if ((list && among(kOfList)) || (object.dict() && among(kOfDict))) return unsafe();
  const MethodFunction method = find_container_method(object, name);
  return method ? std::optional(bound_method(object, name, method)) : std::nullopt;
}

}  // namespace

void require_defined(const Value& value) {
  if (const Undefined* undefined = value.undefined()) throw TemplateError(undefined->message);
}

Value arithmetic(Runtime& runtime, std::string_view op, const Value& a, const Value& b) {
  if (op == "%" && a.string()) return percent_format(runtime, a, b);
  require_defined(a);
  require_defined(b);
  const auto x = a.as_integer(), y = b.as_integer();
  if (x && y) {
    const uint64_t bits = (x->fits() ? 1 : kMaxIntegerBits) + (y->fits() ? 1 : kMaxIntegerBits);
    runtime.step(op == "**" ? 64 : bits / kBytesAStep);
    return integer_arithmetic(op, *x, *y);
  }
  if (a.is_number() && b.is_number()) return float_arithmetic(op, as_double(a), as_double(b));
  if (op == "+") return add(runtime, a, b);
  if (op == "*") {
    if (y && (a.string() || is_list_or_tuple(a))) return repeat(runtime, a, *y);
    if (x && (b.string() || is_list_or_tuple(b))) return repeat(runtime, b, *x);
  }
  unsupported(op, a, b);
}

Value negate(const Value& value, bool minus) {
  require_defined(value);
  if (const auto integer = value.as_integer()) return Value(minus ? -*integer : *integer);
  if (const double* floating = value.floating()) return Value(minus ? -*floating : *floating);
  throw TemplateError(
      fmt::format("bad operand type for unary {}: '{}'", minus ? '-' : '+', type_name(value)));
}

bool compare(Runtime& runtime, std::string_view op, const Value& a, const Value& b) {
  if (op == "in") return contains(runtime, b, a);
  if (op == "not in") return !contains(runtime, b, a);
  charge_comparison(runtime, a, b);
  if (op == "==") return equal(a, b);
  if (op == "!=") return !equal(a, b);
  const auto nan = [](const Value& value) { return value.floating() && std::isnan(*value.floating()); };
  if ((nan(a) && b.is_number()) || (nan(b) && a.is_number())) return false;
  if (op == "<") return less(a, b, op);
  if (op == ">") return less(b, a, op);
  return op == "<=" ? !less(b, a, op) : !less(a, b, op);
}

bool contains(Runtime& runtime, const Value& container, const Value& item) {
  if (const String* string = container.string()) {
    const String* part = item.string();
    if (!part)
      throw TemplateError(
          fmt::format("'in <string>' requires string as left operand, not {}", type_name(item)));
    runtime.step(container.weight());
    return find_text(string->text, part->text) != std::string_view::npos;
  }
  if (const Dict* dict = container.dict()) {
    runtime.step(item.weight());
    return dict->find(item) != nullptr;
  }
  if (container.undefined()) return false;
  if (!container.sequence())
    throw TemplateError(fmt::format("argument of type '{}' is not iterable", type_name(container)));
  for (const Value& one : iterate(runtime, container)) {
    charge_comparison(runtime, one, item);
    if (equal(one, item)) return true;
  }
  return false;
}

Value concatenate(Runtime& runtime, const std::vector<Value>& parts) {
  const auto is_markup = [](const Value& part) { return part.string() && part.string()->markup; };
  const bool markup = std::any_of(parts.begin(), parts.end(), is_markup);
  std::string out;
  for (const Value& part : parts) {
    if (const String* string = part.string(); string && (!markup || string->markup))
      out += string->text;
    else
      out += markup ? escape(text_of(part)) : text_of(part);
  }
  return runtime.string(std::move(out), markup);
}

Value get_attribute(Runtime& runtime, const Value& object, std::string_view name) {
  require_defined(object);
  if (auto found = attribute(runtime, object, name)) return std::move(*found);
  if (const Dict* dict = object.dict())
    if (const Value* found = dict->find(name)) return *found;
  return runtime.undefined_member(object, runtime.string(std::string(name)));
}

Value get_item(Runtime& runtime, const Value& object, const Value& index) {
  require_defined(object);
  if (auto found = subscript(runtime, object, index)) return std::move(*found);
  if (const String* name = index.string())
    if (auto found = attribute(runtime, object, name->text)) return std::move(*found);
  return runtime.undefined_member(object, index);
}

Value get_slice(Runtime& runtime, const Value& object, const Value& start, const Value& stop,
                const Value& step) {
  require_defined(object);
  const Sequence* sequence = object.sequence();
  if (const String* string = object.string()) {
    runtime.step(object.weight());
    std::string out;
    if (string->ascii) {
      for (const size_t i : slice_indices(string->text.size(), start, stop, step)) out += string->text[i];
    } else {
      const std::vector<std::string_view> all = characters(string->text);
      for (const size_t i : slice_indices(all.size(), start, stop, step)) out += all[i];
    }
    runtime.step(out.size() / kBytesAStep);
    return runtime.string(std::move(out), string->markup);
  }
  if (!sequence || (sequence->kind != Sequence::Kind::range && !is_list_or_tuple(object)))
    throw TemplateError(object.dict() ? "unhashable type: 'slice'"
                                      : fmt::format("'{}' object is not subscriptable", type_name(object)));
  std::vector<Value> out;
  for (const size_t i : slice_indices(sequence->items.size(), start, stop, step))
    out.push_back(sequence->items[i]);
  std::string label;
  if (sequence->kind == Sequence::Kind::range) label = "range(...)";
  return runtime.sequence(sequence->kind, std::move(out), std::move(label));
}

size_t find_text(std::string_view text, std::string_view needle, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  const void* found = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  return found ? static_cast<size_t>(static_cast<const char*>(found) - text.data()) : std::string_view::npos;
}

}  // namespace moerun::jinja
