#include "text/jinja/loop.h"

#include "text/jinja/builtins.h"

namespace moerun::jinja {

Value cycle_loop(Runtime& runtime, const Value& self, const Arguments& arguments) {
  return static_cast<const Loop*>(self.object())->cycle(runtime, arguments);
}

Value loop_changed(Runtime& runtime, const Value& self, const Arguments& arguments) {
  auto* loop = static_cast<Loop*>(self.object());
  if (!loop->kept_) runtime.keep(*self.object_ref());
  loop->kept_ = true;
  return loop->changed(runtime, arguments);
}

const std::optional<Value>& Loop::peek() {
  while (!ahead_ && next_ < items_.size()) {
    const Value& item = items_[next_++];
    if (!test_ || test_(item)) ahead_ = item;
  }
  return ahead_;
}

bool Loop::advance() {
  if (!peek()) return false;
  previous_ = std::move(current_);
  current_ = std::move(ahead_);
  ahead_.reset();
  ++index_;
  return true;
}

int64_t Loop::length() {
  if (test_) {  // the rest has to be looked at
    std::vector<Value> rest;
    while (peek()) {
      rest.push_back(std::move(*ahead_));
      ahead_.reset();
    }
    items_ = std::move(rest);
    next_ = 0;
    test_ = nullptr;
  }
  return index_ + (ahead_ ? 1 : 0) + static_cast<int64_t>(items_.size() - next_);
}

Value Loop::neighbour(Runtime& runtime, std::string_view name) {
  const std::optional<Value>& item = name == "previtem" ? previous_ : peek();
  if (item) return *item;
  return runtime.undefined(name == "previtem" ? "there is no previous item" : "there is no next item");
}

std::optional<Value> Loop::attribute(Runtime& runtime, std::string_view name) {
  if (name == "index") return Value(index_);
  if (name == "index0") return Value(index_ - 1);
  if (name == "first") return Value(index_ == 1);
  if (name == "last") return Value(!peek());
  if (name == "length") return Value(length());
  if (name == "revindex") return Value(length() - index_ + 1);
  if (name == "revindex0") return Value(length() - index_);
  if (name == "depth") return Value(depth_ + 1);
  if (name == "depth0") return Value(depth_);
  if (name == "previtem" || name == "nextitem") return neighbour(runtime, name);
  if (name != "cycle" && name != "changed") return std::nullopt;
  return bound_method(Value(shared_from_this()), name, name == "cycle" ? cycle_loop : loop_changed);
}

Value Loop::cycle(Runtime&, const Arguments& arguments) const {
  if (arguments.positional.empty()) throw TemplateError("no items for cycling given");
  return arguments.positional[static_cast<size_t>(index_ - 1) % arguments.positional.size()];
}

Value Loop::changed(Runtime& runtime, const Arguments& arguments) {
  Value now = runtime.tuple(arguments.positional);
  runtime.step(now.weight());
  if (last_changed_ && equal(*last_changed_, now)) return Value(false);
  last_changed_ = std::move(now);
  return Value(true);
}

Value Loop::call(Runtime& runtime, const Arguments& arguments) {
  if (!render_) throw TemplateError("The loop must have the 'recursive' marker to be called recursively.");
  const Parameters given("loop", arguments, {"iterable"}, 1);
  static_cast<void>(runtime);
  return render_(given[0], depth_ + 1);
}

void Loop::finish() {
  test_ = nullptr;
  render_ = nullptr;
  items_.clear();
  next_ = 0;
  ahead_.reset();
}

void Loop::clear() {
  last_changed_.reset();
  previous_.reset();
  current_.reset();
  ahead_.reset();
  items_.clear();
}

}  // namespace moerun::jinja
