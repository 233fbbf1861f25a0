#include "io/json_line.h"

#include <algorithm>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/shortened.h"
#include "text/unicode.h"

namespace moerun {
namespace {

/// "column 5: what is wrong" of nlohmann's "[json.exception...] parse error at line 1, column 5: what ...".
std::string reason_of(const std::string& what) {
  const size_t column = what.find("column ");
  return shortened(column == std::string::npos ? what.substr(what.find("] ") + 2) : what.substr(column), 200);
}

/// The keys of an object being read.
class Keys {
 public:
  /// False when the key is there already.
  bool add(const std::string& key) {
    if (many_.empty() && few_.size() < kFew) {
      if (std::find(few_.begin(), few_.end(), key) != few_.end()) return false;
      few_.push_back(key);
      return true;
    }
    if (many_.empty()) many_.insert(few_.begin(), few_.end());
    return many_.insert(key).second;
  }
  size_t size() const { return many_.empty() ? few_.size() : many_.size(); }

 private:
  static constexpr size_t kFew = 16;
  std::vector<std::string> few_;
  std::unordered_set<std::string> many_;
};

/// Builds the value as the parser meets its parts. nlohmann's own builder looks through an object for each
/// key that it adds. After a fault it goes on without building, for the line's id.
class Builder : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return scalar(nullptr); }
  bool boolean(bool value) override { return scalar(value); }
  bool number_integer(number_integer_t value) override {
    if (!in_token_ids_) return scalar(value);
    if (count_value()) token_ids_->push_back(value);
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (!in_token_ids_ || value > INT64_MAX) return scalar(value);
    return number_integer(static_cast<number_integer_t>(value));
  }
  bool number_float(number_float_t value, const string_t& /*text*/) override { return scalar(value); }
  bool string(string_t& value) override { return scalar(std::move(value)); }
  bool binary(binary_t& /*value*/) override { return false; }  // JSON has none

  bool start_object(size_t /*elements*/) override {
    open(Json::object());
    return true;
  }
  bool start_array(size_t /*elements*/) override {
    const bool token_ids = open_.size() == 1 && key_ == "prompt_token_ids";
    open(Json::array());
    if (token_ids && fault_.empty()) in_token_ids_ = true, token_ids_.emplace();
    return true;
  }
  bool key(string_t& key) override {
    if (fault_.empty()) {
      if (!keys_.back().add(key))
        fail(fmt::format("the line has {} twice", shown(Json(key))));
      else if (keys_.back().size() > JsonLineLimits::kMostKeys)
        fail(fmt::format("the line has an object of more than {} keys", JsonLineLimits::kMostKeys));
    }
    if (fault_.empty() || depth_ == 1) key_ = std::move(key);
    return true;
  }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool parse_error(size_t /*position*/, const std::string& /*token*/, const Json::exception& error) override {
    if (fault_.empty()) fault_ = "not JSON at " + reason_of(error.what());
    return false;
  }

  JsonLine take() {
    if (fault_.empty() && !root_.is_object())
      fault_ = fmt::format("a line must be a JSON object, not {}", shown(root_));
    return {std::move(root_), std::move(fault_), std::move(token_ids_)};
  }

 private:
  using Members = std::vector<Json::object_t::value_type>;  // what nlohmann's ordered_map is

  void fail(std::string fault) {
    fault_ = std::move(fault);
    Json kept = Json::object();
    for (const char* name : {"id", "custom_id"})
      if (root_.is_object() && root_.contains(name)) kept[name] = root_[name];
    root_ = std::move(kept);
    open_.clear();
    keys_.clear();
    in_token_ids_ = false;
    token_ids_.reset();
  }

  /// There is something else in the list of token ids: it is a list like others.
  void leave_token_ids() {
    if (!in_token_ids_) return;
    in_token_ids_ = false;
    for (const int64_t id : *token_ids_) put(Json(id));
    token_ids_.reset();
  }

  /// Puts a value where the parser is, and returns where it lies.
  Json* put(Json&& value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) return &parent.get_ref<Json::array_t&>().emplace_back(std::move(value));
    auto& members = static_cast<Members&>(parent.get_ref<Json::object_t&>());
    return &members.emplace_back(std::move(key_), std::move(value)).second;
  }

  /// False: there is a fault.
  bool count_value() {
    if (fault_.empty() && ++num_values_ > JsonLineLimits::kMostValues)
      fail(fmt::format("the line has more than {} values", JsonLineLimits::kMostValues));
    return fault_.empty();
  }

  template <class Value>
  bool scalar(Value&& value) {
    leave_token_ids();
    if (count_value()) {
      put(Json(std::forward<Value>(value)));
    } else if (depth_ == 1 && (key_ == "id" || key_ == "custom_id")) {
      root_[key_] = Json(std::forward<Value>(value));
    }
    return true;
  }

  void open(Json&& container) {
    ++depth_;
    leave_token_ids();
    if (fault_.empty() && depth_ > JsonLineLimits::kMostDepth)
      fail(fmt::format("the line is nested deeper than {} levels", JsonLineLimits::kMostDepth));
    if (fault_.empty() && ++num_containers_ > JsonLineLimits::kMostContainers)
      fail(fmt::format("the line has more than {} objects and lists", JsonLineLimits::kMostContainers));
    if (!fault_.empty()) return;
    open_.push_back(put(std::move(container)));
    keys_.emplace_back();
  }

  bool close() {
    --depth_;
    if (!fault_.empty()) return true;
    in_token_ids_ = false;  // whatever ends while they are read is their list
    open_.pop_back();
    keys_.pop_back();
    return true;
  }

  Json root_ = Json::object();
  std::string fault_, key_;
  std::vector<Json*> open_;  // the objects and lists that are being read; each lies in the one before
  std::vector<Keys> keys_;   // theirs
  int depth_ = 0;
  size_t num_values_ = 0, num_containers_ = 0;
  bool in_token_ids_ = false;
  std::optional<std::vector<int64_t>> token_ids_;
};

}  // namespace

JsonLine read_json_line(std::string_view line) {
  if (const auto at = find_invalid_utf8(line))
    return {Json::object(), fmt::format("byte {} of the line is no valid UTF-8", *at)};
  Builder builder;
  Json::sax_parse(line.begin(), line.end(), &builder);
  return builder.take();
}

}  // namespace moerun
