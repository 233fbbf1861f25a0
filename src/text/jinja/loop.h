#pragma once
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "text/jinja/runtime.h"

namespace moerun::jinja {

/// The `loop` of a for statement: where it stands, and the items around. Items that a loop's `if` leaves out
/// are passed over as they come.
class Loop : public Object {
 public:
  using Test = std::function<bool(const Value& item)>;  ///< empty: all items
  using Render =
      std::function<Value(const Value& items, int64_t depth)>;  ///< of a recursive loop, else empty

  Loop(std::vector<Value> items, Test test, Render render, int64_t depth)
      : items_(std::move(items)), test_(std::move(test)), render_(std::move(render)), depth_(depth) {}

  /// To the next item; false at the end.
  bool advance();
  const Value& current() const { return *current_; }
  bool began() const { return index_ > 0; }
  /// Lets go of what the test and the rendering stand on: the for statement has ended.
  void finish();

  std::string_view type_name() const override { return "LoopContext"; }
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override;
  bool callable() const override { return true; }
  Value call(Runtime& runtime, const Arguments& arguments) override;
  void clear() override;

 private:
  const std::optional<Value>& peek();
  int64_t length();
  Value neighbour(Runtime& runtime, std::string_view name);
  Value cycle(Runtime& runtime, const Arguments& arguments) const;
  Value changed(Runtime& runtime, const Arguments& arguments);
  friend Value cycle_loop(Runtime&, const Value&, const Arguments&);
  friend Value loop_changed(Runtime&, const Value&, const Arguments&);

  std::vector<Value> items_;
  Test test_;
  Render render_;
  int64_t depth_;
  size_t next_ = 0;    // of items_
  int64_t index_ = 0;  // of the current item, from 1
  std::optional<Value> previous_, current_, ahead_;
  std::optional<Value> last_changed_;
  bool kept_ = false;
};

}  // namespace moerun::jinja
