#include "text/pretokenizer_steps.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace moerun {

SplitBehavior read_behavior(const Component& component) {
  constexpr std::pair<const char*, SplitBehavior> kNames[] = {
      {"Removed", SplitBehavior::removed},
      {"Isolated", SplitBehavior::isolated},
      {"MergedWithPrevious", SplitBehavior::merged_with_previous},
      {"MergedWithNext", SplitBehavior::merged_with_next},
      {"Contiguous", SplitBehavior::contiguous}};
  const std::string given = component.text("behavior");
  for (const auto& [name, behavior] : kNames)
    if (given == name) return behavior;
  component.fail(fmt::format("has the behavior '{}', which this program does not know", given));
}

void SplitStep::apply(const PieceList::Piece& piece, PieceList& out) {
  pattern_.find_all(piece.text, matches_);
  parts_.clear();
  size_t end = 0;  // of the last part
  for (const auto& [match_begin, match_end] : matches_) {
    if (match_begin > end) parts_.push_back({end, match_begin, invert_});
    parts_.push_back({match_begin, match_end, !invert_});
    end = match_end;
  }
  if (end < piece.text.size()) parts_.push_back({end, piece.text.size(), invert_});

  if (behavior_ == SplitBehavior::removed) std::erase_if(parts_, [](const Part& part) { return part.match; });
  if (behavior_ == SplitBehavior::contiguous) join_alike();
  if (behavior_ == SplitBehavior::merged_with_previous) merge(false);
  if (behavior_ == SplitBehavior::merged_with_next) merge(true);
  for (const Part& part : parts_)
    out.pieces.push_back(
        {piece.text.substr(part.begin, part.end - part.begin), piece.at_start && part.begin == 0});
}

/// Matches that touch become one, and so does what is between them.
void SplitStep::join_alike() {
  size_t kept = 0;
  for (const Part& part : parts_) {
    if (kept > 0 && parts_[kept - 1].match == part.match)
      parts_[kept - 1].end = part.end;
    else
      parts_[kept++] = part;
  }
  parts_.resize(kept);
}

/// A match joins the part before it (backwards: behind it), unless that is a match.
void SplitStep::merge(bool backwards) {
  if (backwards) std::reverse(parts_.begin(), parts_.end());
  size_t kept = 0;
  bool previous_match = false;
  for (const Part& part : parts_) {
    if (part.match && !previous_match && kept > 0) {
      parts_[kept - 1].begin = std::min(parts_[kept - 1].begin, part.begin);
      parts_[kept - 1].end = std::max(parts_[kept - 1].end, part.end);
    } else {
      parts_[kept++] = part;
    }
    previous_match = part.match;
  }
  parts_.resize(kept);
  if (backwards) std::reverse(parts_.begin(), parts_.end());
}

void PrefixSpaceStep::apply(const PieceList::Piece& piece, PieceList& out) {
  if (piece.text.starts_with(' ')) return out.pieces.push_back(piece);
  out.storage.push_back(" " + std::string(piece.text));
  out.pieces.push_back({out.storage.back(), piece.at_start});
}

PrependScheme read_prepend_scheme(const Component& component) {
  constexpr std::pair<const char*, PrependScheme> kNames[] = {
      {"always", PrependScheme::always}, {"first", PrependScheme::first}, {"never", PrependScheme::never}};
  const bool has_flag = !component.member("add_prefix_space").is_null();
  const bool prefix = component.flag("add_prefix_space", true);
  if (component.member("prepend_scheme").is_null())
    return prefix ? PrependScheme::always : PrependScheme::never;
  const std::string given = component.text("prepend_scheme");
  for (const auto& [name, scheme] : kNames)
    if (given == name) {
      if (has_flag && prefix != (scheme != PrependScheme::never))
        component.fail(fmt::format("has add_prefix_space {} and prepend_scheme '{}'", prefix, given));
      return scheme;
    }
  component.fail(fmt::format("has the prepend_scheme '{}', which this program does not know", given));
}

void MetaspaceStep::apply(const PieceList::Piece& piece, PieceList& out) {
  std::string text;
  for (const char c : piece.text) c == ' ' ? text += replacement_ : text += c;
  const bool prepend =
      scheme_ == PrependScheme::always || (scheme_ == PrependScheme::first && piece.at_start);
  if (prepend && !text.starts_with(replacement_)) text.insert(0, replacement_);
  out.storage.push_back(std::move(text));
  const std::string_view whole = out.storage.back();
  size_t begin = 0;
  // A piece begins at each replacement character.
  while (split_ && begin < whole.size()) {
    const size_t own = whole.substr(begin).starts_with(replacement_) ? replacement_.size() : 0;
    const size_t next = whole.find(replacement_, begin + own);
    if (next == std::string_view::npos) break;
    out.pieces.push_back({whole.substr(begin, next - begin), piece.at_start && begin == 0});
    begin = next;
  }
  out.pieces.push_back({whole.substr(begin), piece.at_start && begin == 0});
}

}  // namespace moerun
