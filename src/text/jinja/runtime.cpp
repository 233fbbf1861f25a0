#include "text/jinja/runtime.h"

#include <algorithm>

#include "text/jinja/text.h"

namespace moerun::jinja {
namespace {

/// What a value takes beside its text.
constexpr size_t kOverhead = 64;

}  // namespace

Runtime::~Runtime() {
  for (auto& [object, charge] : kept_) object->clear();
}

void Runtime::too_many_steps() const {
  throw TemplateError(fmt::format("the template takes more than {} steps", max_steps_),
                      TemplateError::Kind::limit);
}

Charge Runtime::charge(size_t bytes) {
  if (live_ + bytes > kMaxLiveBytes)
    throw TemplateError(fmt::format("the template's values take more than {} MiB", kMaxLiveBytes >> 20),
                        TemplateError::Kind::limit);
  step(1 + bytes / kBytesAStep);
  return {&live_, bytes};
}

Value Runtime::string(std::string text, bool markup) {
  if (text.size() > kMaxOutputBytes)
    throw TemplateError(fmt::format("a text of more than {} MiB", kMaxOutputBytes >> 20),
                        TemplateError::Kind::limit);
  auto out = std::make_shared<String>();
  out->charge = charge(kOverhead + text.size());
  out->ascii = is_ascii(text);
  out->text = std::move(text);
  out->markup = markup;
  return Value(std::move(out));
}

Value Runtime::sequence(Sequence::Kind kind, std::vector<Value> items, std::string label) {
  auto out = std::make_shared<Sequence>();
  out->kind = kind;
  out->charge = charge(kOverhead + items.size() * sizeof(Value));
  for (const Value& item : items) {
    out->depth = std::max(out->depth, item.depth() + 1);
    out->weight += item.weight();
  }
  if (out->weight > kMaxSteps)
    throw TemplateError("a value holds too many others", TemplateError::Kind::limit);
  if (out->depth > kMaxValueDepth)
    throw TemplateError(fmt::format("values are nested deeper than {} levels", kMaxValueDepth),
                        TemplateError::Kind::limit);
  out->items = std::move(items);
  out->label = std::move(label);
  return Value(std::move(out));
}

Value Runtime::of_dict(Ref<Dict> dict) {
  dict->charge = charge(kOverhead + dict->size() * (sizeof(Dict::Entry) + kOverhead));
  return Value(std::move(dict));
}

Value Runtime::undefined(std::string message) const {
  return Value(std::make_shared<Undefined>(Undefined{std::move(message)}));
}

Value Runtime::undefined_name(std::string_view name) const {
  return undefined(fmt::format("'{}' is undefined", name));
}

Value Runtime::undefined_member(const Value& value, const Value& key) const {
  if (const String* name = key.string())
    return undefined(fmt::format("'{}' has no attribute {}", object_name(value), shown_text(name->text)));
  return undefined(fmt::format("{} has no element {}", object_name(value), repr(key)));
}

void Runtime::keep(Ref<Clearable> object) {
  Charge taken = charge(4 * kOverhead);
  kept_.emplace_back(std::move(object), std::move(taken));
}

std::vector<Value> iterate(Runtime& runtime, const Value& value) {
  std::vector<Value> out;
  if (Sequence* sequence = value.sequence()) {
    const size_t first = sequence->kind == Sequence::Kind::generator ? sequence->next : 0;
    out.assign(sequence->items.begin() + static_cast<std::ptrdiff_t>(first), sequence->items.end());
    if (sequence->kind == Sequence::Kind::generator) sequence->next = sequence->items.size();
  } else if (const Dict* dict = value.dict()) {
    out.reserve(dict->size());
    for (const auto& [key, member] : dict->entries()) out.push_back(key);
  } else if (const String* string = value.string()) {
    for (const std::string_view character : characters(string->text))
      out.push_back(runtime.string(std::string(character), string->markup));
  } else if (!value.undefined()) {
    throw TemplateError(fmt::format("'{}' object is not iterable", type_name(value)));
  }
  runtime.step(out.size());
  return out;
}

}  // namespace moerun::jinja
