#include "text/jinja/json.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "moerun/error.h"
#include "text/jinja/text.h"
#include "text/unicode.h"

namespace moerun::jinja {
namespace {

class Writer {
 public:
  Writer(Runtime& runtime, const JsonStyle& style) : runtime_(runtime), style_(style) {}

  std::string run(const Value& value) {
    write(value, 0);
    return std::move(out_);
  }

 private:
  void check() {
    runtime_.step();
    if (out_.size() > kMaxOutputBytes) throw TemplateError("a text is too long", TemplateError::Kind::limit);
  }

  void new_line(int level) {
    if (!style_.indent) return;
    out_ += '\n';
    for (int i = 0; i < level; ++i) out_ += *style_.indent;
    check();
  }

  void write(const Value& value, int level) {
    check();
    const Sequence* sequence = value.sequence();
    if (value.is_none())
      out_ += "null";
    else if (const bool* boolean = value.boolean())
      out_ += *boolean ? "true" : "false";
    else if (const Integer* integer = value.integer())
      out_ += integer->text();
    else if (const double* floating = value.floating())
      out_ += number(*floating);
    else if (const String* string = value.string())
      write_string(string->text);
    else if (const Dict* dict = value.dict())
      write_dict(*dict, level);
    else if (sequence && (sequence->kind == Sequence::Kind::list || sequence->kind == Sequence::Kind::tuple))
      write_list(*sequence, level);
    else
      throw TemplateError(fmt::format("Object of type {} is not JSON serializable", type_name(value)));
  }

  static std::string number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
    return float_text(value);
  }

  void write_list(const Sequence& list, int level) {
    if (list.items.empty()) {
      out_ += "[]";
      return;
    }
    out_ += '[';
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out_ += style_.item_separator;
      new_line(level + 1);
      write(list.items[i], level + 1);
    }
    new_line(level);
    out_ += ']';
  }

  static std::string key_of(const Value& key) {
    if (const String* string = key.string()) return string->text;
    if (key.is_none()) return "null";
    if (const bool* boolean = key.boolean()) return *boolean ? "true" : "false";
    if (const double* floating = key.floating()) return number(*floating);
    if (const Integer* integer = key.integer()) return integer->text();
    throw TemplateError(fmt::format("keys must be str, int, float, bool or None, not {}", type_name(key)));
  }

  void write_dict(const Dict& dict, int level) {
    if (dict.size() == 0) {
      out_ += "{}";
      return;
    }
    std::vector<Dict::Entry> entries = dict.entries();
    if (style_.sort_keys)
      std::stable_sort(entries.begin(), entries.end(),
                       [](const Dict::Entry& a, const Dict::Entry& b) { return less(a.first, b.first); });
    out_ += '{';
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) out_ += style_.item_separator;
      new_line(level + 1);
      write_string(key_of(entries[i].first));
      out_ += style_.key_separator;
      write(entries[i].second, level + 1);
    }
    new_line(level);
    out_ += '}';
  }

  void write_string(std::string_view text) {
    out_ += '"';
    for (size_t pos = 0; pos < text.size();) {
      const size_t bytes = utf8_unit_at(text, pos).length;
      write_character(code_point_at(text, pos), text.substr(pos, bytes));
      pos += bytes;
    }
    out_ += '"';
    runtime_.step(text.size() / kBytesAStep);
  }

  void write_character(char32_t c, std::string_view bytes) {
    static constexpr std::string_view kFrom = "\"\\\n\r\t\f\b", kTo = "\"\\nrtfb";
    const size_t at = c < 0x80 ? kFrom.find(static_cast<char>(c)) : std::string_view::npos;
    if (at != std::string_view::npos)
      (out_ += '\\') += kTo[at];
    else if (c < 0x20 || (style_.ensure_ascii && c >= 0x7F && c < 0x10000 && c != 0x7F))
      out_ += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    else if (style_.ensure_ascii && c >= 0x10000)
      out_ += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + ((static_cast<uint32_t>(c) - 0x10000) >> 10),
                          0xDC00 + (static_cast<uint32_t>(c) & 0x3FF));
    else
      out_ += bytes;
  }

  Runtime& runtime_;
  const JsonStyle& style_;
  std::string out_;
};

/// Makes values of what nlohmann's parser comes by.
class Reader {
 public:
  using Json = nlohmann::json;
  explicit Reader(Runtime& runtime) : runtime_(runtime) {}
  Value take() { return std::move(top_); }

  bool null() { return add(Value()); }
  bool boolean(bool value) { return add(Value(value)); }
  bool number_integer(Json::number_integer_t value) { return add(Value(int64_t{value})); }
  bool number_unsigned(Json::number_unsigned_t value) {
    if (value <= INT64_MAX) return add(Value(static_cast<int64_t>(value)));
    return add(Value(Integer::from_digits(std::to_string(value))));
  }
  /// Whole numbers beyond 64 bits come here too.
  bool number_float(Json::number_float_t value, const std::string& text) {
    if (text.find_first_not_of("-0123456789") == std::string::npos)
      return add(Value(Integer::from_digits(text)));
    return add(Value(value));
  }
  bool string(std::string& text) { return add(runtime_.string(std::move(text))); }
  bool binary(Json::binary_t&) { return false; }
  bool start_object(size_t) { return open(true); }
  bool start_array(size_t) { return open(false); }
  bool key(std::string& name) {
    open_.back().key = runtime_.string(std::move(name));
    return true;
  }
  bool end_object() {
    Ref<Dict> dict = std::move(open_.back().dict);
    open_.pop_back();
    return add(runtime_.of_dict(std::move(dict)));
  }
  bool end_array() {
    std::vector<Value> items = std::move(open_.back().items);
    open_.pop_back();
    return add(runtime_.list(std::move(items)));
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) {
    const std::string what = error.what();
    throw BadInput("not JSON at " + what.substr(std::min(what.find("column "), what.size())));
  }

 private:
  struct Open {
    Ref<Dict> dict;  // null: a list
    Value key;
    std::vector<Value> items;
  };

  bool open(bool object) {
    if (open_.size() >= static_cast<size_t>(kMaxValueDepth))
      throw BadInput(fmt::format("JSON nested deeper than {} levels", kMaxValueDepth));
    open_.push_back({object ? runtime_.new_dict() : nullptr, Value(), {}});
    return true;
  }

  bool add(Value value) {
    if (open_.empty())
      top_ = std::move(value);
    else if (open_.back().dict)
      open_.back().dict->set(std::move(open_.back().key), std::move(value));
    else
      open_.back().items.push_back(std::move(value));
    return true;
  }

  Runtime& runtime_;
  std::vector<Open> open_;
  Value top_;
};

}  // namespace

std::string to_json(Runtime& runtime, const Value& value, const JsonStyle& style) {
  return Writer(runtime, style).run(value);
}

Value from_json(Runtime& runtime, std::string_view text) {
  Reader reader(runtime);
  nlohmann::json::sax_parse(text.begin(), text.end(), &reader);
  return reader.take();
}

}  // namespace moerun::jinja
