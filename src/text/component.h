#pragma once
#include <cstdint>
#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace moerun {

/// A component of a tokenizer.json (a normalizer, a decoder, ...) as JSON: {"type": NAME, ...}. What is read
/// of it is checked, and what would go unread is refused; every fault is a BadInput that names file and
/// component.
class Component {
 public:
  /// `json` may be null: there is no such component. `where` is how messages call it ("normalizer"), `file`
  /// its file. Both arguments must outlive it.
  Component(const nlohmann::json& json, std::string where, const std::string& file)
      : json_(&json), where_(std::move(where)), file_(&file) {}

  bool absent() const;
  std::string type() const;
  static constexpr size_t kMostInList = 64;  ///< each goes over the whole text
  static constexpr int kMostLists = 2;       ///< in one another

  /// The components of a "Sequence" under `key`.
  std::vector<Component> list(const char* key) const;
  /// Refuses any key beside "type" and these.
  void known_keys(std::initializer_list<std::string_view> keys) const;
  bool flag(const char* key, bool otherwise) const;
  std::string text(const char* key) const;
  /// A text of one character.
  std::string character(const char* key) const;
  int64_t number(const char* key, int64_t most) const;  ///< from 0 on
  const nlohmann::json& member(const char* key) const;  ///< null where it is not there

  /// "FILE: WHERE WHAT"
  [[noreturn]] void fail(const std::string& what) const;

 private:
  const nlohmann::json* json_;
  std::string where_;
  const std::string* file_;
  int lists_ = 0;  // that it stands in
};

/// A table that makes one kind of component: by its type, what reads it.
template <typename Made>
struct ComponentReader {
  std::string_view type;
  Made (*read)(const Component&);
};

[[noreturn]] void fail_unknown_type(const Component& component, const std::vector<std::string_view>& known);

/// Reads `component` with the entry of its type.
template <typename Made, size_t n>
Made read_by_type(const ComponentReader<Made> (&readers)[n], const Component& component) {
  const std::string type = component.type();
  std::vector<std::string_view> known;
  for (const auto& reader : readers) {
    if (reader.type == type) return reader.read(component);
    known.push_back(reader.type);
  }
  fail_unknown_type(component, known);
}

}  // namespace moerun
