#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace moerun {

/// What a config.json may ask for, checked before anything is multiplied or allocated by it; docs/limits.md
/// states them. Far above any published model, and small enough that products of them are exact in int64.
namespace config_limits {
constexpr int64_t kLayers = 1024;
constexpr int64_t kExperts = 4096;
constexpr int64_t kExpertsOfAllLayers = 1 << 17;
constexpr int64_t kHidden = 1 << 18;  ///< also the width of dense layers and experts
constexpr int64_t kHeads = 4096;      ///< of queries
constexpr int64_t kHeadDim = 4096;
constexpr int64_t kVocabulary = 1 << 24;
constexpr int64_t kPositions = 1 << 30;
constexpr size_t kEndTokens = 1024;     ///< eos_token_id
constexpr size_t kModulePatterns = 64;  ///< of modules that quantization_config does not convert
}  // namespace config_limits

/// Takes fields out of a JSON object one by one; what is left at the end was not understood. What is wrong is
/// collected, each with the object's name.
class Fields {
 public:
  using Json = nlohmann::json;

  Fields(const Json& json, std::string name, std::vector<std::string>& faults)
      : json_(json), name_(std::move(name)), faults_(faults) {}

  /// The field, or null when it is absent or null.
  const Json* find(const std::string& key);

  // Each is false, and leaves `value` alone, where the field is absent or null; true with a fault and `value`
  // alone where it has another type.
  bool read(const std::string& key, bool& value);
  bool read(const std::string& key, std::string& value);
  bool read(const std::string& key, double& value);
  bool read(const std::string& key, std::vector<int64_t>& value);
  bool read(const std::string& key, int64_t& value, int64_t least, int64_t most);

  /// A fault where the field is absent.
  void require(const std::string& key, int64_t& value, int64_t least, int64_t most);
  /// For a field whose one value is all that runs (`what` says of the others why: "… is not supported").
  void expect(const std::string& key, const Json& only, std::string_view what);

  /// Whether one of those above took the field, or looked for it.
  bool asked_for(const std::string& key) const { return known_.contains(key); }

  void fault(const std::string& text);
  /// An inner object, whose faults name `key` as well.
  Fields inner(const std::string& key, const Json& json) const;
  /// Every field that was not taken, is not null and not `harmless`.
  void refuse_unknown(const std::set<std::string_view>& harmless);

  const std::string& name() const { return name_; }
  size_t num_faults() const { return faults_.size(); }

 private:
  bool fits(const std::string& key, const Json& field, bool right);

  const Json& json_;
  std::string name_;
  std::vector<std::string>& faults_;
  std::set<std::string> known_;
};

/// An integer of a JSON value within [least, most]. False for anything else, without narrowing.
bool integer_within(const nlohmann::json& value, int64_t least, int64_t most, int64_t& out);

/// A JSON value as messages show it: short, whatever it is.
std::string shown(const nlohmann::json& value);

}  // namespace moerun
