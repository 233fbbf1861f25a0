#include "text/decode_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "text/byte_level.h"
#include "text/pretokenizer_steps.h"

namespace moerun {
namespace {

constexpr int64_t kMaxStripped = 1024;

/// What an entry adds to a plan, and where it stands among the others.
enum class Stage { token, bytes, fused, stripped };
using Reader = void (*)(const Component&, DecodePlan&);

void read_replace(const Component& component, DecodePlan& plan) {
  component.known_keys({"pattern", "content"});
  const nlohmann::json& pattern = component.member("pattern");
  if (!pattern.is_object() || pattern.size() != 1 || !pattern.contains("String") ||
      !pattern["String"].is_string() || pattern["String"] == "")
    component.fail("has a pattern that is no String");
  plan.substitutions.push_back({pattern["String"], component.text("content")});
}

void read_metaspace(const Component& component, DecodePlan& plan) {
  component.known_keys({"replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep"});
  plan.substitutions.push_back(
      {component.character("replacement"), " ", read_prepend_scheme(component) != PrependScheme::never});
}

void read_byte_fallback(const Component& component, DecodePlan& plan) {
  component.known_keys({});
  plan.byte_fallback = true;
}

void read_fuse(const Component& component, DecodePlan& plan) {
  component.known_keys({});
  plan.fuse = true;
}

void read_strip(const Component& component, DecodePlan& plan) {
  component.known_keys({"content", "start", "stop"});
  if (!plan.fuse) component.fail("stands before Fuse, which this program does not know");
  if (!plan.strip.empty()) component.fail("comes twice");
  if (component.number("stop", kMaxStripped) != 0)
    component.fail("strips the end, which this program does not know");
  plan.strip = component.character("content");
  plan.strip_max = component.number("start", kMaxStripped);
}

struct Entry {
  std::string_view type;
  Stage stage;
  Reader read;
};
constexpr Entry kEntries[] = {{"Replace", Stage::token, read_replace},
                              {"Metaspace", Stage::token, read_metaspace},
                              {"ByteFallback", Stage::bytes, read_byte_fallback},
                              {"Fuse", Stage::fused, read_fuse},
                              {"Strip", Stage::stripped, read_strip}};

void add(const Component& component, DecodePlan& plan, Stage& reached) {
  const std::string type = component.type();
  if (type == "Sequence") {
    component.known_keys({"decoders"});
    for (const Component& one : component.list("decoders")) add(one, plan, reached);
    return;
  }
  std::vector<std::string_view> known{"Sequence", "ByteLevel"};
  for (const Entry& entry : kEntries) {
    known.push_back(entry.type);
    if (entry.type != type) continue;
    if (entry.stage < reached) component.fail("stands behind what this program knows only after it");
    reached = entry.stage;
    return entry.read(component, plan);
  }
  fail_unknown_type(component, known);
}

}  // namespace

bool DecodePlan::first_differs() const {
  return std::any_of(substitutions.begin(), substitutions.end(),
                     [](const auto& one) { return one.nothing_in_first; });
}

std::string DecodePlan::text_of(std::string_view token, bool first) const {
  if (byte_level) return byte_level_bytes(token);
  std::string text(token);
  for (const Substitution& one : substitutions) {
    const std::string& to = one.nothing_in_first && first ? std::string() : one.to;
    for (size_t at = text.find(one.from); at != std::string::npos; at = text.find(one.from, at + to.size()))
      text.replace(at, one.from.size(), to);
  }
  return text;
}

std::optional<uint8_t> DecodePlan::fallback_byte(std::string_view text) const {
  uint8_t byte = 0;
  if (!byte_fallback || text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return std::nullopt;
  const auto [end, error] = std::from_chars(text.data() + 3, text.data() + 5, byte, 16);
  if (error != std::errc() || end != text.data() + 5) return std::nullopt;
  return byte;
}

DecodePlan read_decoder(const Component& component) {
  DecodePlan plan;
  // The inverse of the byte alphabet, whatever the options, which are the pre-tokenizer's.
  if (component.type() == "ByteLevel") {
    component.known_keys({"add_prefix_space", "trim_offsets", "use_regex"});
    plan.byte_level = true;
    return plan;
  }
  Stage reached = Stage::token;
  add(component, plan, reached);
  return plan;
}

}  // namespace moerun
