#include "text/jinja/value.h"

#include <algorithm>
#include <cmath>
#include <compare>

#include "text/jinja/runtime.h"
#include "text/jinja/text.h"

namespace moerun::jinja {
namespace {

constexpr size_t kFewEntries = 8;

/// Numbers of all three kinds compared exactly.
std::partial_ordering compare_numbers(const Value& a, const Value& b) {
  const auto x = a.as_integer(), y = b.as_integer();
  if (x && y) return *x <=> *y;
  if (x) return Integer::compare(*x, *b.floating());
  if (y) {
    const std::partial_ordering other_way = Integer::compare(*y, *a.floating());
    if (std::is_lt(other_way)) return std::partial_ordering::greater;
    return std::is_gt(other_way) ? std::partial_ordering::less : other_way;
  }
  return *a.floating() <=> *b.floating();
}

bool equal_sequences(const Sequence& a, const Sequence& b) {
  if (a.kind != b.kind || a.kind == Sequence::Kind::generator || a.kind == Sequence::Kind::values)
    return &a == &b;
  return std::equal(a.items.begin(), a.items.end(), b.items.begin(), b.items.end(), equal);
}

bool equal_dicts(const Dict& a, const Dict& b) {
  return a.size() == b.size() &&
         std::all_of(a.entries().begin(), a.entries().end(), [&](const Dict::Entry& entry) {
           const Value* other = b.find(entry.first);
           return other && equal(entry.second, *other);
         });
}

bool is_list_or_tuple(const Value& value) {
  const Sequence* sequence = value.sequence();
  return sequence && (sequence->kind == Sequence::Kind::list || sequence->kind == Sequence::Kind::tuple);
}

}  // namespace

Value Object::call(Runtime&, const Arguments&) {
  throw TemplateError(fmt::format("'{}' object is not callable", type_name()));
}

std::string Object::text() const { return fmt::format("<{}>", type_name()); }

bool Value::same_as(const Value& other) const {
  if (data_.index() != other.data_.index()) return false;
  return std::visit(
      [&](const auto& a) {
        using T = std::decay_t<decltype(a)>;
        const T& b = std::get<T>(other.data_);
        if constexpr (std::is_same_v<T, None>)
          return true;
        else
          return a == b;
      },
      data_);
}

std::optional<Integer> Value::as_integer() const {
  if (const Integer* value = integer()) return *value;
  if (const bool* value = boolean()) return Integer(*value ? 1 : 0);
  return std::nullopt;
}

int Value::depth() const {
  if (const Sequence* value = sequence()) return value->depth;
  if (const Dict* value = dict()) return value->depth();
  if (const Object* value = object()) return value->depth();
  return 0;
}

uint64_t Value::weight() const {
  if (const String* value = string()) return 1 + value->text.size() / kBytesAStep;
  if (const Sequence* value = sequence()) return value->weight;
  if (const Dict* value = dict()) return value->weight();
  return 1;
}

const Value* Dict::find(const Value& key) const {
  const auto at = place(key, hash_of(key));
  return at ? &entries_[*at].second : nullptr;
}

const Value* Dict::find(std::string_view key) const {
  if (index_.empty()) {
    for (const Entry& entry : entries_)
      if (const String* text = entry.first.string(); text && text->text == key) return &entry.second;
    return nullptr;
  }
  const auto [begin, end] = index_.equal_range(std::hash<std::string_view>()(key));
  for (auto it = begin; it != end; ++it) {
    const String* text = entries_[it->second].first.string();
    if (text && text->text == key) return &entries_[it->second].second;
  }
  return nullptr;
}

std::optional<size_t> Dict::place(const Value& key, size_t hash) const {
  if (index_.empty()) {
    for (size_t i = 0; i < entries_.size(); ++i)
      if (equal(entries_[i].first, key)) return i;
    return std::nullopt;
  }
  const auto [begin, end] = index_.equal_range(hash);
  for (auto it = begin; it != end; ++it)
    if (equal(entries_[it->second].first, key)) return it->second;
  return std::nullopt;
}

void Dict::set(Value key, Value value) {
  const size_t hash = hash_of(key);
  depth_ = std::max({depth_, key.depth() + 1, value.depth() + 1});
  if (depth_ > kMaxValueDepth)
    throw TemplateError(fmt::format("values are nested deeper than {} levels", kMaxValueDepth),
                        TemplateError::Kind::limit);
  weight_ += key.weight() + value.weight();
  if (weight_ > kMaxSteps) throw TemplateError("a value holds too many others", TemplateError::Kind::limit);
  if (const auto at = place(key, hash)) {
    weight_ -= key.weight() + entries_[*at].second.weight();
    entries_[*at].second = std::move(value);
    return;
  }
  entries_.emplace_back(std::move(key), std::move(value));
  if (!index_.empty()) {
    index_.emplace(hash, entries_.size() - 1);
  } else if (entries_.size() > kFewEntries) {
    for (size_t i = 0; i < entries_.size(); ++i) index_.emplace(hash_of(entries_[i].first), i);
  }
}

bool truth(const Value& value) {
  if (const bool* boolean = value.boolean()) return *boolean;
  if (const Integer* integer = value.integer()) return !integer->is_zero();
  if (const double* floating = value.floating()) return *floating != 0;
  if (const Sequence* sequence = value.sequence(); sequence && sequence->kind == Sequence::Kind::generator)
    return true;
  if (const auto length = length_of(value)) return *length > 0;
  return !value.is_none();
}

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return std::is_eq(compare_numbers(a, b));
  if (a.string() && b.string()) return a.string()->text == b.string()->text;
  if (a.sequence() && b.sequence()) return equal_sequences(*a.sequence(), *b.sequence());
  if (a.dict() && b.dict()) return equal_dicts(*a.dict(), *b.dict());
  if (a.undefined() && b.undefined()) return true;
  return a.same_as(b);
}

bool less(const Value& a, const Value& b, std::string_view op) {
  if (a.is_number() && b.is_number()) return std::is_lt(compare_numbers(a, b));
  if (a.string() && b.string()) return a.string()->text < b.string()->text;  // UTF-8 sorts as code points do
  if (is_list_or_tuple(a) && is_list_or_tuple(b) && a.sequence()->kind == b.sequence()->kind) {
    const auto &x = a.sequence()->items, &y = b.sequence()->items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i)
      if (!equal(x[i], y[i])) return less(x[i], y[i], op);
    return x.size() < y.size();
  }
  for (const Value* value : {&a, &b})
    if (value->undefined()) throw TemplateError(value->undefined()->message);
  const bool swapped = op == ">" || op == "<=";  // a > b is asked as b < a, a <= b as not b < a
  throw TemplateError(fmt::format("'{}' not supported between instances of '{}' and '{}'", op,
                                  type_name(swapped ? b : a), type_name(swapped ? a : b)));
}

size_t hash_of(const Value& value) {
  if (const auto integer = value.as_integer()) return integer->hash();
  if (const double* floating = value.floating()) {
    if (std::isfinite(*floating) && std::trunc(*floating) == *floating)
      return Integer::from_double(*floating).hash();
    return std::hash<double>()(*floating);
  }
  if (const String* string = value.string()) return std::hash<std::string_view>()(string->text);
  if (value.is_none() || value.undefined()) return value.is_none() ? 1 : 2;
  if (const Object* object = value.object()) return std::hash<const Object*>()(object);
  if (const Sequence* sequence = value.sequence();
      sequence && (sequence->kind == Sequence::Kind::tuple || sequence->kind == Sequence::Kind::range)) {
    size_t hash = 7;
    for (const Value& item : sequence->items) hash = hash * 31 + hash_of(item);
    return hash;
  }
  throw TemplateError(fmt::format("unhashable type: '{}'", type_name(value)));
}

std::string type_name(const Value& value) {
  if (value.is_none()) return "NoneType";
  if (value.boolean()) return "bool";
  if (value.integer()) return "int";
  if (value.floating()) return "float";
  if (const String* string = value.string()) return string->markup ? "Markup" : "str";
  if (value.dict()) return "dict";
  if (value.undefined()) return "Undefined";
  if (const Object* object = value.object()) return std::string(object->type_name());
  switch (value.sequence()->kind) {
    case Sequence::Kind::list:
      return "list";
    case Sequence::Kind::tuple:
      return "tuple";
    case Sequence::Kind::range:
      return "range";
    case Sequence::Kind::keys:
      return "dict_keys";
    case Sequence::Kind::values:
      return "dict_values";
    case Sequence::Kind::items:
      return "dict_items";
    case Sequence::Kind::generator:
      return "generator";
  }
  return "?";
}

std::string object_name(const Value& value) {
  return value.is_none() ? "None" : type_name(value) + " object";
}

std::optional<size_t> length_of(const Value& value) {
  if (const String* string = value.string())
    return string->ascii ? string->text.size() : length(string->text);
  if (const Sequence* sequence = value.sequence()) {
    if (sequence->kind == Sequence::Kind::generator) return std::nullopt;
    return sequence->items.size();
  }
  if (const Dict* dict = value.dict()) return dict->size();
  if (value.undefined()) return 0;
  return std::nullopt;
}

}  // namespace moerun::jinja
