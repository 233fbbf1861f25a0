#include <algorithm>
#include <cmath>

#include "text/jinja/builtins.h"
#include "text/jinja/operators.h"
#include "text/jinja/text.h"

// Methods of Python's list, tuple, dict, int and float that change nothing.
namespace moerun::jinja {
namespace {

Value get(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("get", arguments, {"key", "default"}, 1);
  runtime.step(given[0].weight());
  if (const Value* found = self.dict()->find(given[0])) return *found;
  return given.find(1) ? given[1] : Value();
}

Value keys(Runtime& runtime, const Value& self, const Arguments&) {
  return runtime.sequence(Sequence::Kind::keys, iterate(runtime, self));
}

Value values(Runtime& runtime, const Value& self, const Arguments&) {
  std::vector<Value> out;
  for (const auto& [key, value] : self.dict()->entries()) out.push_back(value);
  return runtime.sequence(Sequence::Kind::values, std::move(out));
}

Value items(Runtime& runtime, const Value& self, const Arguments& arguments) {
  Parameters("items", arguments, {});
  std::vector<Value> out;
  for (const auto& [key, value] : self.dict()->entries()) out.push_back(runtime.tuple({key, value}));
  return runtime.sequence(Sequence::Kind::items, std::move(out));
}

Value copy(Runtime&, const Value& self, const Arguments&) { return self; }

Value from_keys(Runtime& runtime, const Value&, const Arguments& arguments) {
  const Parameters given("fromkeys", arguments, {"iterable", "value"}, 1);
  Ref<Dict> out = runtime.new_dict();
  for (const Value& key : iterate(runtime, given[0])) out->set(key, given.find(1) ? given[1] : Value());
  return runtime.of_dict(std::move(out));
}

Value count(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("count", arguments, {"value"}, 1);
  int64_t found = 0;
  for (const Value& item : self.sequence()->items) found += compare(runtime, "==", item, given[0]);
  return Value(found);
}

Value index(Runtime& runtime, const Value& self, const Arguments& arguments) {
  const Parameters given("index", arguments, {"value"}, 1);
  const std::vector<Value>& items = self.sequence()->items;
  for (size_t i = 0; i < items.size(); ++i)
    if (compare(runtime, "==", items[i], given[0])) return Value(static_cast<int64_t>(i));
  throw TemplateError(fmt::format("{} is not in list", repr(given[0])));
}

Value is_whole(Runtime&, const Value& self, const Arguments&) {
  return Value(!self.floating() ||
               (std::isfinite(*self.floating()) && std::trunc(*self.floating()) == *self.floating()));
}

constexpr Named<MethodFunction> kOfDict[] = {{"copy", copy},   {"fromkeys", from_keys}, {"get", get},
                                             {"items", items}, {"keys", keys},          {"values", values}};
constexpr Named<MethodFunction> kOfList[] = {{"copy", copy}, {"count", count}, {"index", index}};
constexpr Named<MethodFunction> kOfTuple[] = {{"count", count}, {"index", index}};
constexpr Named<MethodFunction> kOfFloat[] = {{"is_integer", is_whole}};

}  // namespace

MethodFunction find_container_method(const Value& self, std::string_view name) {
  if (self.dict()) return find_in(kOfDict, name);
  if (self.floating()) return find_in(kOfFloat, name);
  const Sequence* sequence = self.sequence();
  if (!sequence) return nullptr;
  if (sequence->kind == Sequence::Kind::list) return find_in(kOfList, name);
  const bool tuple = sequence->kind == Sequence::Kind::tuple || sequence->kind == Sequence::Kind::range;
  return tuple ? find_in(kOfTuple, name) : nullptr;
}

}  // namespace moerun::jinja
