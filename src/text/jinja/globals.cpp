#include <array>
#include <clocale>
#include <ctime>

#include "text/jinja/builtins.h"
#include "text/jinja/namespace.h"
#include "text/jinja/operators.h"
#include "text/jinja/text.h"

namespace moerun::jinja {
namespace {

using GlobalFunction = Value (*)(Runtime&, const Arguments&);

class Global : public Object {
 public:
  Global(std::string_view name, GlobalFunction function) : name_(name), function_(function) {}
  std::string_view type_name() const override { return "function"; }
  std::string text() const override { return fmt::format("<function {}>", name_); }
  bool callable() const override { return true; }
  Value call(Runtime& runtime, const Arguments& arguments) override { return function_(runtime, arguments); }

 private:
  std::string_view name_;
  GlobalFunction function_;
};

Value range(Runtime& runtime, const Arguments& arguments) {
  const Parameters given("range", arguments, {"start", "stop", "step"}, 1);
  const int64_t start = given.find(1) ? require_integer(given[0]) : 0;
  const int64_t stop = require_integer(given.find(1) ? given[1] : given[0]);
  const int64_t step = given.integer(2, 1);
  if (step == 0) throw TemplateError("range() arg 3 must not be zero");
  const auto distance = static_cast<__int128>(stop) - start;
  const __int128 count =
      (step > 0) == (distance > 0) && distance != 0 ? (distance + step - (step > 0 ? 1 : -1)) / step : 0;
  if (count > kMaxRange)
    throw TemplateError(
        fmt::format("Range too big. The sandbox blocks ranges larger than MAX_RANGE ({}).", kMaxRange));
  std::vector<Value> items;
  for (int64_t i = 0; i < static_cast<int64_t>(count); ++i)
    items.emplace_back(static_cast<int64_t>(static_cast<__int128>(start) + static_cast<__int128>(step) * i));
  std::string label = step == 1 ? fmt::format("range({}, {})", start, stop)
                                : fmt::format("range({}, {}, {})", start, stop, step);
  return runtime.sequence(Sequence::Kind::range, std::move(items), std::move(label));
}

/// dict(mapping or pairs, name=value, ...)
Value dict(Runtime& runtime, const Arguments& arguments) {
  Ref<Dict> out = runtime.new_dict();
  if (arguments.positional.size() > 1)
    throw TemplateError(fmt::format("dict expected at most 1 argument, got {}", arguments.positional.size()));
  if (!arguments.positional.empty()) {
    const Value& from = arguments.positional.front();
    if (const Dict* mapping = from.dict()) {
      for (const auto& [key, value] : mapping->entries()) out->set(key, value);
    } else {
      for (const Value& pair : iterate(runtime, from)) {
        const std::vector<Value> both = iterate(runtime, pair);
        if (both.size() != 2)
          throw TemplateError(
              fmt::format("dictionary update sequence element has length {}; 2 is required", both.size()));
        runtime.step(both[0].weight());
        out->set(both[0], both[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.keyword) out->set(runtime.string(name), value);
  return runtime.of_dict(std::move(out));
}

Value make_namespace(Runtime& runtime, const Arguments& arguments) {
  const Value attributes = dict(runtime, arguments);
  const auto space = std::make_shared<Namespace>();
  runtime.keep(space);
  for (const auto& [key, value] : attributes.dict()->entries())
    space->set(runtime, require_text(key, "a namespace's attribute"), value);
  return Value(Ref<Object>(space));
}

Value raise_exception(Runtime&, const Arguments& arguments) {
  const Parameters given("raise_exception", arguments, {"message"}, 1);
  throw TemplateError(text_of(given[0]), TemplateError::Kind::raised);
}

/// As Python's datetime.strftime() of a time without a zone and a fraction of a second.
std::string strftime_text(const std::tm& time, std::string format) {
  for (size_t at = format.find('%'); at != std::string::npos && at + 1 < format.size();
       at = format.find('%', at)) {
    const char kind = format[at + 1];
    const std::string_view own = kind == 'f' ? "000000" : "";
    if (kind == 'f' || kind == 'z' || kind == 'Z') {
      format.replace(at, 2, own);
      at += own.size();
    } else {
      at += 2;
    }
  }
  if (format.empty()) return "";
  const locale_t plain = newlocale(LC_ALL_MASK, "C", nullptr);
  std::string out(256 + 8 * format.size(), '\0');
  out.resize(strftime_l(out.data(), out.size(), format.c_str(), &time, plain));
  freelocale(plain);
  return out;
}

Value strftime_now(Runtime& runtime, const Arguments& arguments) {
  const Parameters given("strftime_now", arguments, {"format"}, 1);
  const std::string& format = require_text(given[0], "strftime() argument 1");
  constexpr size_t kMostBytes = 1000;
  if (format.size() > kMostBytes || format.find('\0') != std::string::npos)
    throw TemplateError(
        fmt::format("a format of a date must have less than {} bytes and no NUL", kMostBytes));
  const std::time_t now = runtime.now();
  std::tm time{};
  gmtime_r(&now, &time);
  std::string text = strftime_text(time, format);
  runtime.dates.emplace(format, text);
  return runtime.string(std::move(text));
}

Value cycler_next(Runtime& runtime, const Value& self, const Arguments& arguments);
Value cycler_reset(Runtime& runtime, const Value& self, const Arguments& arguments);

class Cycler : public Object {
 public:
  explicit Cycler(Value items) : items_(std::move(items)) {}
  std::string_view type_name() const override { return "Cycler"; }
  int depth() const override { return items_.depth() + 1; }
  std::optional<Value> attribute(Runtime&, std::string_view name) override {
    if (name == "current") return current();
    if (name == "next") return bound_method(Value(shared_from_this()), name, cycler_next);
    if (name == "reset") return bound_method(Value(shared_from_this()), name, cycler_reset);
    return std::nullopt;
  }
  const Value& current() const { return items_.sequence()->items[at_]; }
  Value next() {
    Value out = current();
    at_ = (at_ + 1) % items_.sequence()->items.size();
    return out;
  }
  void reset() { at_ = 0; }

 private:
  Value items_;
  size_t at_ = 0;
};

Value cycler_next(Runtime&, const Value& self, const Arguments&) {
  return static_cast<Cycler*>(self.object())->next();
}

Value cycler_reset(Runtime&, const Value& self, const Arguments&) {
  static_cast<Cycler*>(self.object())->reset();
  return {};
}

Value make_cycler(Runtime& runtime, const Arguments& arguments) {
  if (arguments.positional.empty()) throw TemplateError("at least one item has to be provided");
  return Value(Ref<Object>(std::make_shared<Cycler>(runtime.tuple(arguments.positional))));
}

class Joiner : public Object {
 public:
  explicit Joiner(Value separator) : separator_(std::move(separator)) {}
  std::string_view type_name() const override { return "Joiner"; }
  bool callable() const override { return true; }
  int depth() const override { return separator_.depth() + 1; }
  Value call(Runtime& runtime, const Arguments&) override {
    if (std::exchange(used_, true)) return separator_;
    return runtime.string("");
  }

 private:
  Value separator_;
  bool used_ = false;
};

Value make_joiner(Runtime& runtime, const Arguments& arguments) {
  const Parameters given("joiner", arguments, {"sep"});
  return Value(Ref<Object>(std::make_shared<Joiner>(given.find(0) ? given[0] : runtime.string(", "))));
}

Value lipsum(Runtime&, const Arguments&) {
  throw TemplateError("lipsum() gives other text each time, and is not supported");
}

constexpr Named<GlobalFunction> kGlobals[] = {
    {"cycler", make_cycler},
    {"dict", dict},
    {"joiner", make_joiner},
    {"lipsum", lipsum},
    {"namespace", make_namespace},
    {"raise_exception", raise_exception},
    {"range", range},
    {"strftime_now", strftime_now},
};

}  // namespace

void Namespace::set(Runtime& runtime, std::string_view name, Value value) {
  if (name.starts_with('_'))
    throw TemplateError(fmt::format(
        "Chat templates cannot store underscore-prefixed attributes on a namespace, but got '{}'. Please "
        "rename the attribute.",
        name));
  values_.set(runtime.string(std::string(name)), std::move(value));
}

std::optional<Value> Namespace::attribute(Runtime&, std::string_view name) {
  const Value* found = values_.find(name);
  return found ? std::optional(*found) : std::nullopt;
}

std::optional<Value> find_global(std::string_view name) {
  for (const auto& [known, function] : kGlobals)
    if (known == name) return Value(Ref<Object>(std::make_shared<Global>(known, function)));
  return std::nullopt;
}

}  // namespace moerun::jinja
