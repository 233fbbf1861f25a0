#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "text/jinja/integer.h"
#include "text/jinja/limits.h"
#include "text/jinja/template_error.h"

namespace moerun::jinja {

class Runtime;
class Value;
struct Arguments;

/// What values alive take of kMaxLiveBytes: given back when they go.
class Charge {
 public:
  Charge() = default;
  Charge(size_t* live, size_t bytes) : live_(live), bytes_(bytes) { *live_ += bytes_; }
  Charge(Charge&& other) noexcept : live_(std::exchange(other.live_, nullptr)), bytes_(other.bytes_) {}
  Charge& operator=(Charge&& other) noexcept {
    std::swap(live_, other.live_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Charge() {
    if (live_) *live_ -= bytes_;
  }

 private:
  size_t* live_ = nullptr;
  size_t bytes_ = 0;
};

struct None {};

struct String {
  std::string text;     ///< UTF-8
  bool markup = false;  ///< markupsafe's Markup: other text is escaped where it joins
  bool ascii = true;
  Charge charge;
};

/// What is not there. Prints as nothing, is false and empty; most other uses are errors with `message`.
struct Undefined {
  std::string message;
};

/// Values one after the other.
struct Sequence {
  enum class Kind { list, tuple, range, keys, values, items, generator };
  Kind kind = Kind::list;
  std::vector<Value> items;
  std::string label;    ///< of a range: how it prints; "group": a tuple of groupby()
  size_t next = 0;      ///< of a generator: what was not taken yet
  int depth = 1;        ///< of values within values
  uint64_t weight = 1;  ///< Value::weight()
  Charge charge;
};

class Dict;

class Object;

template <class T>
using Ref = std::shared_ptr<T>;

/// A value of a template: Python's, as far as JSON and jinja2 make them. Cheap to copy; all but namespaces,
/// loops and generators are immutable once made (jinja2's ImmutableSandboxedEnvironment).
class Value {
 public:
  using Data = std::variant<None, bool, Integer, double, Ref<String>, Ref<Sequence>, Ref<Dict>,
                            Ref<Undefined>, Ref<Object>>;
  Value() = default;  ///< None
  explicit Value(bool value) : data_(value) {}
  explicit Value(int64_t value) : data_(Integer(value)) {}
  explicit Value(Integer value) : data_(std::move(value)) {}
  explicit Value(double value) : data_(value) {}
  explicit Value(Ref<String> value) : data_(std::move(value)) {}
  explicit Value(Ref<Sequence> value) : data_(std::move(value)) {}
  explicit Value(Ref<Dict> value) : data_(std::move(value)) {}
  explicit Value(Ref<Undefined> value) : data_(std::move(value)) {}
  explicit Value(Ref<Object> value) : data_(std::move(value)) {}

  const Data& data() const { return data_; }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  const bool* boolean() const { return std::get_if<bool>(&data_); }
  const Integer* integer() const { return std::get_if<Integer>(&data_); }  ///< no bool
  const double* floating() const { return std::get_if<double>(&data_); }
  String* string() const { return get<String>(); }
  Sequence* sequence() const { return get<Sequence>(); }
  Dict* dict() const { return get<Dict>(); }
  Undefined* undefined() const { return get<Undefined>(); }
  Object* object() const { return get<Object>(); }
  const Ref<Object>* object_ref() const { return std::get_if<Ref<Object>>(&data_); }

  /// The same thing, as Python's `is`.
  bool same_as(const Value& other) const;
  /// An int or a bool as an int.
  std::optional<Integer> as_integer() const;
  bool is_number() const { return boolean() || integer() || floating(); }
  int depth() const;  ///< of values within it, at most kMaxValueDepth
  /// About how many steps a walk over all that is within it takes.
  uint64_t weight() const;

 private:
  template <class T>
  T* get() const {
    const auto* ref = std::get_if<Ref<T>>(&data_);
    return ref ? ref->get() : nullptr;
  }
  Data data_;
};

/// What may hold itself, through a namespace or a macro's surroundings.
class Clearable {
 public:
  virtual ~Clearable() = default;
  /// Lets go of other values.
  virtual void clear() {}
};

/// What has attributes of its own or can be called.
class Object : public Clearable, public std::enable_shared_from_this<Object> {
 public:
  virtual std::string_view type_name() const = 0;
  virtual std::optional<Value> attribute(Runtime&, std::string_view) { return std::nullopt; }
  virtual bool callable() const { return false; }
  virtual Value call(Runtime&, const Arguments&);
  virtual std::string text() const;
  virtual int depth() const { return 1; }
};

/// What a call is given.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keyword;
};

/// A dict: keys in the order of their first setting. Setting is for who makes it.
class Dict {
 public:
  using Entry = std::pair<Value, Value>;
  const std::vector<Entry>& entries() const { return entries_; }
  const Value* find(const Value& key) const;  ///< throws for a key that cannot be hashed
  const Value* find(std::string_view key) const;
  void set(Value key, Value value);
  size_t size() const { return entries_.size(); }
  int depth() const { return depth_; }
  uint64_t weight() const { return weight_; }
  Charge charge;

 private:
  std::optional<size_t> place(const Value& key, size_t hash) const;
  std::vector<Entry> entries_;
  std::unordered_multimap<size_t, size_t> index_;  // of hashes, once there are many
  int depth_ = 1;
  uint64_t weight_ = 1;
};

bool truth(const Value& value);
/// Python's ==.
bool equal(const Value& a, const Value& b);
/// Python's < on what can be ordered; throws TypeError's words naming `op` else.
bool less(const Value& a, const Value& b, std::string_view op = "<");
/// Throws TypeError's words for lists and dicts.
size_t hash_of(const Value& value);

/// type(x).__name__
std::string type_name(const Value& value);
/// How jinja2 calls a value in its messages: "dict object", "None".
std::string object_name(const Value& value);

/// The number of items of a sized value; none for others (numbers, generators).
std::optional<size_t> length_of(const Value& value);

}  // namespace moerun::jinja
