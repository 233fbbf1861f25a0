#pragma once
#include <ctime>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/value.h"

namespace moerun::jinja {

/// One rendering: its bounds, and the making of values under them. Thread contract: one thread.
class Runtime {
 public:
  /// `now` is what strftime_now() tells, UTC.
  explicit Runtime(std::time_t now, uint64_t max_steps = kMaxSteps) : now_(now), max_steps_(max_steps) {}
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  /// Counts work done; throws past the most.
  void step(uint64_t count = 1) {
    if ((steps_ += count) > max_steps_) too_many_steps();
  }
  /// Takes bytes of what is alive, counting their making as work.
  Charge charge(size_t bytes);

  Value string(std::string text, bool markup = false);
  Value list(std::vector<Value> items) { return sequence(Sequence::Kind::list, std::move(items)); }
  Value tuple(std::vector<Value> items) { return sequence(Sequence::Kind::tuple, std::move(items)); }
  Value generator(std::vector<Value> items) { return sequence(Sequence::Kind::generator, std::move(items)); }
  Value sequence(Sequence::Kind kind, std::vector<Value> items, std::string label = "");
  /// A dict to be filled and then given to of_dict().
  Ref<Dict> new_dict() { return std::make_shared<Dict>(); }
  Value of_dict(Ref<Dict> dict);
  Value undefined(std::string message) const;
  Value undefined_name(std::string_view name) const;
  /// `value` has no such attribute or element.
  Value undefined_member(const Value& value, const Value& key) const;

  /// Keeps an object that may hold itself, and clears it when the rendering ends.
  void keep(Ref<Clearable> object);

  std::time_t now() const { return now_; }
  /// What strftime_now() told, by its format.
  std::map<std::string, std::string> dates;

 private:
  [[noreturn]] void too_many_steps() const;

  std::time_t now_;
  uint64_t steps_ = 0, max_steps_;
  size_t live_ = 0;
  std::vector<std::pair<Ref<Clearable>, Charge>> kept_;
};

/// The items of anything that can be iterated; a generator's are taken from it. Throws TypeError's words
/// else.
std::vector<Value> iterate(Runtime& runtime, const Value& value);

}  // namespace moerun::jinja
