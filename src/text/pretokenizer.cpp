#include "text/pretokenizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "text/pretokenizer_steps.h"

namespace moerun {
namespace {

using Steps = std::vector<std::unique_ptr<PreTokenizerStep>>;

/// The pattern of `ByteLevel` with use_regex (GPT-2's).
constexpr const char* kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

Steps read_split(const Component& component) {
  component.known_keys({"pattern", "behavior", "invert"});
  Steps steps;
  steps.push_back(std::make_unique<SplitStep>(TextPattern(component), read_behavior(component),
                                              component.flag("invert", false)));
  return steps;
}

Steps read_byte_level(const Component& component) {
  component.known_keys({"add_prefix_space", "trim_offsets", "use_regex"});
  Steps steps;
  if (component.flag("add_prefix_space", true)) steps.push_back(std::make_unique<PrefixSpaceStep>());
  if (component.flag("use_regex", true))
    steps.push_back(std::make_unique<SplitStep>(TextPattern(SplitRegex(kByteLevelPattern)),
                                                SplitBehavior::isolated, false));
  return steps;
}

Steps read_digits(const Component& component) {
  component.known_keys({"individual_digits"});
  Steps steps;
  steps.push_back(std::make_unique<SplitStep>(
      TextPattern(SplitRegex("\\p{N}")),
      component.flag("individual_digits", false) ? SplitBehavior::isolated : SplitBehavior::contiguous,
      false));
  return steps;
}

Steps read_metaspace(const Component& component) {
  component.known_keys({"replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep"});
  Steps steps;
  steps.push_back(std::make_unique<MetaspaceStep>(
      component.character("replacement"), read_prepend_scheme(component), component.flag("split", true)));
  return steps;
}

constexpr ComponentReader<Steps> kReaders[] = {{"Split", read_split},
                                               {"ByteLevel", read_byte_level},
                                               {"Digits", read_digits},
                                               {"Metaspace", read_metaspace}};

}  // namespace

Pretokenizer::Pretokenizer(const Component& component) {
  if (!component.absent()) add(component);
}

void Pretokenizer::add(const Component& component) {
  if (component.type() == "Sequence") {
    component.known_keys({"pretokenizers"});
    for (const Component& step : component.list("pretokenizers")) add(step);
    return;
  }
  // Behind ByteLevel, others would see text in its alphabet.
  if (byte_level_) component.fail("stands behind ByteLevel, which must be the last");
  for (auto& step : read_by_type(kReaders, component)) steps_.push_back(std::move(step));
  byte_level_ = component.type() == "ByteLevel";
}

void Pretokenizer::split(std::string_view text, bool at_start, PieceList& out) {
  out.pieces.clear();
  out.storage.clear();
  if (text.empty()) return;
  out.pieces.push_back({text, at_start});
  for (const auto& step : steps_) {
    scratch_.swap(out.pieces);
    out.pieces.clear();
    for (const PieceList::Piece& piece : scratch_) step->apply(piece, out);
  }
}

}  // namespace moerun
