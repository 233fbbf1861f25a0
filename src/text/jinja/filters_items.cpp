#include <algorithm>

#include "text/jinja/case_mapping.h"
#include "text/jinja/filters.h"
#include "text/jinja/operators.h"
#include "text/jinja/text.h"

// jinja2's filters of several values. Where jinja2 gives a generator so do these, but with its items made at
// once.
namespace moerun::jinja {
namespace {

Value folded(Runtime& runtime, const Value& value, bool case_sensitive) {
  return case_sensitive || !value.string() ? value : runtime.string(lower(value.string()->text));
}

/// What sort() and its kin compare: an attribute of the item, or several named with commas, or the item.
Value key_of(Runtime& runtime, const Value& item, const Value* attribute, bool case_sensitive,
             const Value* otherwise = nullptr) {
  if (!attribute || attribute->is_none()) return folded(runtime, item, case_sensitive);
  return folded(runtime, attribute_path(runtime, item, *attribute, otherwise), case_sensitive);
}

using Keyed = std::vector<std::pair<Value, Value>>;  // key, item

void sort_by_key(Runtime& runtime, Keyed& keyed, bool reverse) {
  const auto before = [&](const auto& a, const auto& b) {
    runtime.step(std::min(a.first.weight(), b.first.weight()));
    return reverse ? less(b.first, a.first) : less(a.first, b.first);
  };
  std::stable_sort(keyed.begin(), keyed.end(), before);
}

std::vector<Value> items_of(Keyed& keyed) {
  std::vector<Value> out;
  for (auto& [key, item] : keyed) out.push_back(std::move(item));
  return out;
}

Value sort(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Parameters given("sort", arguments, {"reverse", "case_sensitive", "attribute"});
  const bool case_sensitive = given.flag(1, false);
  const Value* attribute = given.given(2);
  Keyed keyed;
  for (Value& item : iterate(runtime, input)) {
    Value key;
    if (attribute && attribute->string() && attribute->string()->text.find(',') != std::string::npos) {
      std::vector<Value> parts;
      const std::string& names = attribute->string()->text;
      for (size_t begin = 0; begin <= names.size();) {
        const size_t end = std::min(names.find(',', begin), names.size());
        const Value name = runtime.string(names.substr(begin, end - begin));
        parts.push_back(key_of(runtime, item, &name, case_sensitive));
        begin = end + 1;
      }
      key = runtime.list(std::move(parts));
    } else {
      key = key_of(runtime, item, attribute, case_sensitive);
    }
    keyed.emplace_back(std::move(key), std::move(item));
  }
  sort_by_key(runtime, keyed, given.flag(0, false));
  return runtime.list(items_of(keyed));
}

Value dict_sort(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Parameters given("dictsort", arguments, {"case_sensitive", "by", "reverse"});
  const std::string by = given.text(1, "key");
  if (by != "key" && by != "value") throw TemplateError("You can only sort by either \"key\" or \"value\"");
  require_defined(input);
  if (!input.dict()) throw TemplateError(fmt::format("'{}' has no attribute 'items'", object_name(input)));
  Keyed keyed;
  for (const auto& [key, value] : input.dict()->entries())
    keyed.emplace_back(folded(runtime, by == "key" ? key : value, given.flag(0, false)),
                       runtime.tuple({key, value}));
  sort_by_key(runtime, keyed, given.flag(2, false));
  return runtime.list(items_of(keyed));
}

Value unique(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Parameters given("unique", arguments, {"case_sensitive", "attribute"});
  Dict seen;
  std::vector<Value> out;
  for (Value& item : iterate(runtime, input)) {
    const Value key = key_of(runtime, item, given.given(1), given.flag(0, false));
    runtime.step(key.weight());
    if (seen.find(key)) continue;
    seen.set(key, Value());
    out.push_back(std::move(item));
  }
  return runtime.generator(std::move(out));
}

Value extreme(Runtime& runtime, const Value& input, const Arguments& arguments, bool most) {
  const Parameters given(most ? "max" : "min", arguments, {"case_sensitive", "attribute"});
  std::optional<Value> best_key;
  Value best = runtime.undefined("No aggregated item, sequence was empty.");
  for (Value& item : iterate(runtime, input)) {
    Value key = key_of(runtime, item, given.given(1), given.flag(0, false));
    runtime.step(key.weight());
    if (best_key && !(most ? less(*best_key, key, "<") : less(key, *best_key, "<"))) continue;
    best_key = std::move(key);
    best = std::move(item);
  }
  return best;
}

Value min(Runtime& runtime, const Value& input, const Arguments& arguments) {
  return extreme(runtime, input, arguments, false);
}

Value max(Runtime& runtime, const Value& input, const Arguments& arguments) {
  return extreme(runtime, input, arguments, true);
}

/// Pairs of a key (`grouper`) and the items that have it (`list`), sorted by it.
Value group_by(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Parameters given("groupby", arguments, {"attribute", "default", "case_sensitive"}, 1);
  const bool case_sensitive = given.flag(2, false);
  Keyed keyed;
  for (Value& item : iterate(runtime, input)) {
    Value key = key_of(runtime, item, &given[0], case_sensitive, given.given(1));
    keyed.emplace_back(std::move(key), std::move(item));
  }
  sort_by_key(runtime, keyed, false);
  std::vector<Value> groups;
  for (size_t begin = 0, end = 0; begin < keyed.size(); begin = end) {
    std::vector<Value> items;
    for (end = begin; end < keyed.size() && compare(runtime, "==", keyed[begin].first, keyed[end].first);
         ++end)
      items.push_back(keyed[end].second);
    const Value key = attribute_path(runtime, items.front(), given[0], given.given(1));
    groups.push_back(runtime.sequence(Sequence::Kind::tuple, {key, runtime.list(std::move(items))}, "group"));
  }
  return runtime.list(std::move(groups));
}

Value sum(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Parameters given("sum", arguments, {"attribute", "start"});
  Value total = given.find(1) ? given[1] : Value(int64_t{0});
  if (total.string()) throw TemplateError("sum() can't sum strings [use ''.join(seq) instead]");
  for (const Value& item : iterate(runtime, input))
    total = arithmetic(runtime, "+", total, given.given(0) ? attribute_path(runtime, item, given[0]) : item);
  return total;
}

Value first(Runtime& runtime, const Value& input, const Arguments& arguments) {
  Parameters("first", arguments, {});
  if (Sequence* sequence = input.sequence(); sequence && sequence->kind == Sequence::Kind::generator) {
    if (sequence->next < sequence->items.size()) return sequence->items[sequence->next++];
    return runtime.undefined("No first item, sequence was empty.");
  }
  const std::vector<Value> items = iterate(runtime, input);
  return items.empty() ? runtime.undefined("No first item, sequence was empty.") : items.front();
}

void require_reversible(const Value& input) {
  const Sequence* sequence = input.sequence();
  if (sequence && sequence->kind == Sequence::Kind::generator)
    throw TemplateError("'generator' object is not reversible");
}

Value last(Runtime& runtime, const Value& input, const Arguments& arguments) {
  Parameters("last", arguments, {});
  require_reversible(input);
  const std::vector<Value> items = iterate(runtime, input);
  return items.empty() ? runtime.undefined("No last item, sequence was empty.") : items.back();
}

Value length_filter(Runtime&, const Value& input, const Arguments& arguments) {
  Parameters("length", arguments, {});
  if (const auto length = length_of(input)) return Value(static_cast<int64_t>(*length));
  throw TemplateError(fmt::format("object of type '{}' has no len()", type_name(input)));
}

Value to_list(Runtime& runtime, const Value& input, const Arguments& arguments) {
  Parameters("list", arguments, {});
  return runtime.list(iterate(runtime, input));
}

Value reverse(Runtime& runtime, const Value& input, const Arguments& arguments) {
  Parameters("reverse", arguments, {});
  if (input.string()) return get_slice(runtime, input, Value(), Value(), Value(int64_t{-1}));
  std::vector<Value> items = iterate(runtime, input);
  std::reverse(items.begin(), items.end());
  return runtime.generator(std::move(items));
}

Value join(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Parameters given("join", arguments, {"d", "attribute"});
  const std::string separator = given.text(0, "");
  std::string out;
  bool first_item = true;
  for (const Value& item : iterate(runtime, input)) {
    if (!std::exchange(first_item, false)) out += separator;
    const Value* attribute = given.given(1);
    out += text_of(attribute ? attribute_path(runtime, item, *attribute) : item);
    if (out.size() > kMaxOutputBytes) throw TemplateError("a text is too long", TemplateError::Kind::limit);
  }
  return runtime.string(std::move(out));
}

Value default_filter(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Parameters given("default", arguments, {"default_value", "boolean"});
  if (!input.undefined() && !(given.flag(1, false) && !truth(input))) return input;
  return given.find(0) ? given[0] : runtime.string("");
}

Value items(Runtime& runtime, const Value& input, const Arguments& arguments) {
  Parameters("items", arguments, {});
  std::vector<Value> out;
  if (!input.undefined() && !input.dict()) throw TemplateError("Can only get item pairs from a mapping.");
  if (const Dict* dict = input.dict())
    for (const auto& [key, value] : dict->entries()) out.push_back(runtime.tuple({key, value}));
  return runtime.generator(std::move(out));
}

Value attr(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Parameters given("attr", arguments, {"name"}, 1);
  const std::string& name = require_text(given[0], "attribute name");
  if (input.dict() && !find_container_method(input, name)) return runtime.undefined_member(input, given[0]);
  return get_attribute(runtime, input, name);
}

Value batch(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Parameters given("batch", arguments, {"linecount", "fill_with"}, 1);
  const auto size = static_cast<size_t>(std::max<int64_t>(0, require_integer(given[0])));
  if (size > kMaxLiveBytes / sizeof(Value) / 8)
    throw TemplateError("a batch is too long", TemplateError::Kind::limit);
  std::vector<Value> out, line;
  for (Value& item : iterate(runtime, input)) {
    if (line.size() == size) out.push_back(runtime.list(std::exchange(line, {})));
    line.push_back(std::move(item));
  }
  if (!line.empty()) {
    if (const Value* fill = given.given(1)) {
      if (size > line.size()) runtime.step(size - line.size());
      while (line.size() < size) line.push_back(*fill);
    }
    out.push_back(runtime.list(std::move(line)));
  }
  return runtime.generator(std::move(out));
}

Value slice(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Parameters given("slice", arguments, {"slices", "fill_with"}, 1);
  const std::vector<Value> all = iterate(runtime, input);
  const int64_t slices = require_integer(given[0]);
  if (slices == 0) throw TemplateError("integer division or modulo by zero");
  if (slices < 0) return runtime.generator({});
  runtime.step(static_cast<uint64_t>(slices));
  const size_t count = static_cast<size_t>(slices), size = all.size() / count, longer = all.size() % count;
  std::vector<Value> out;
  for (size_t i = 0, begin = 0; i < count; ++i) {
    const size_t end = begin + size + (i < longer ? 1 : 0);
    std::vector<Value> part(all.begin() + static_cast<std::ptrdiff_t>(begin),
                            all.begin() + static_cast<std::ptrdiff_t>(end));
    if (given.given(1) && longer > 0 && i >= longer) part.push_back(given[1]);
    out.push_back(runtime.list(std::move(part)));
    begin = end;
  }
  return runtime.generator(std::move(out));
}

Value without_first(Arguments& arguments, const char* missing) {
  if (arguments.positional.empty()) throw TemplateError(missing);
  Value name = std::move(arguments.positional.front());
  arguments.positional.erase(arguments.positional.begin());
  return name;
}

Value map(Runtime& runtime, const Value& input, const Arguments& arguments) {
  if (!truth(input)) return runtime.generator({});
  std::vector<Value> out;
  if (arguments.positional.empty()) {
    const Parameters given("map", arguments, {"attribute", "default"});
    if (!given.find(0)) throw TemplateError("map requires a filter argument");
    for (const Value& item : iterate(runtime, input))
      out.push_back(attribute_path(runtime, item, given[0], given.given(1)));
    return runtime.generator(std::move(out));
  }
  Arguments rest = arguments;
  const Value name = without_first(rest, "map requires a filter argument");
  const FilterFunction filter = name.string() ? find_filter(name.string()->text) : nullptr;
  if (!filter) throw TemplateError(fmt::format("No filter named {}.", repr(name)));
  for (const Value& item : iterate(runtime, input)) {
    if (item.string()) runtime.step(item.weight());
    out.push_back(filter(runtime, item, rest));
  }
  return runtime.generator(std::move(out));
}

/// select, reject, selectattr and rejectattr.
Value chosen(Runtime& runtime, const Value& input, const Arguments& arguments, bool wanted,
             bool by_attribute) {
  if (!truth(input)) return runtime.generator({});
  Arguments rest = arguments;
  const Value attribute =
      by_attribute ? without_first(rest, "Missing parameter for attribute name") : Value();
  TestFunction test = nullptr;
  if (!rest.positional.empty()) {
    const Value name = without_first(rest, "");
    test = name.string() ? find_test(name.string()->text) : nullptr;
    if (!test) throw TemplateError(fmt::format("No test named {}.", repr(name)));
  }
  std::vector<Value> out;
  for (Value& item : iterate(runtime, input)) {
    const Value tested = by_attribute ? attribute_path(runtime, item, attribute) : item;
    if ((test ? test(runtime, tested, rest) : truth(tested)) == wanted) out.push_back(std::move(item));
  }
  return runtime.generator(std::move(out));
}

Value select(Runtime& r, const Value& v, const Arguments& a) { return chosen(r, v, a, true, false); }
Value reject(Runtime& r, const Value& v, const Arguments& a) { return chosen(r, v, a, false, false); }
Value select_attr(Runtime& r, const Value& v, const Arguments& a) { return chosen(r, v, a, true, true); }
Value reject_attr(Runtime& r, const Value& v, const Arguments& a) { return chosen(r, v, a, false, true); }

constexpr Named<FilterFunction> kFilters[] = {
    {"attr", attr},
    {"batch", batch},
    {"count", length_filter},
    {"d", default_filter},
    {"default", default_filter},
    {"dictsort", dict_sort},
    {"first", first},
    {"groupby", group_by},
    {"items", items},
    {"join", join},
    {"last", last},
    {"length", length_filter},
    {"list", to_list},
    {"map", map},
    {"max", max},
    {"min", min},
    {"reject", reject},
    {"rejectattr", reject_attr},
    {"reverse", reverse},
    {"select", select},
    {"selectattr", select_attr},
    {"slice", slice},
    {"sort", sort},
    {"sum", sum},
    {"unique", unique},
};

}  // namespace

FilterFunction find_item_filter(std::string_view name) { return find_in(kFilters, name); }

FilterFunction find_filter(std::string_view name) {
  const FilterFunction filter = find_text_filter(name);
  return filter ? filter : find_item_filter(name);
}

}  // namespace moerun::jinja
