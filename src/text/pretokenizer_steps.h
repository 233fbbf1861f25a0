#pragma once
#include <string>
#include <utility>
#include <vector>

#include "text/pretokenizer.h"
#include "text/replacement.h"

namespace moerun {

/// What becomes of a match of a split's pattern (Hugging Face `SplitDelimiterBehavior`).
enum class SplitBehavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

/// The component's `behavior`. Throws BadInput when there is none or it is not known.
SplitBehavior read_behavior(const Component& component);

/// Cuts a piece at the matches of a pattern, or (`invert`) at what is between them.
class SplitStep : public PreTokenizerStep {
 public:
  SplitStep(TextPattern pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}
  void apply(const PieceList::Piece& piece, PieceList& out) override;

 private:
  struct Part {
    size_t begin, end;  // bytes
    bool match;
  };
  void merge(bool backwards);
  void join_alike();

  TextPattern pattern_;
  SplitBehavior behavior_;
  bool invert_;
  std::vector<std::pair<size_t, size_t>> matches_;
  std::vector<Part> parts_;
};

/// Puts a space before a piece that begins with none: ByteLevel's add_prefix_space.
class PrefixSpaceStep : public PreTokenizerStep {
 public:
  void apply(const PieceList::Piece& piece, PieceList& out) override;
};

/// Where Metaspace puts its character before a piece that does not begin with it.
enum class PrependScheme { always, first, never };

/// `prepend_scheme`, or what older files said by add_prefix_space.
PrependScheme read_prepend_scheme(const Component& component);

/// Writes spaces as another character ("▁"), and cuts before each when `split`.
class MetaspaceStep : public PreTokenizerStep {
 public:
  MetaspaceStep(std::string replacement, PrependScheme scheme, bool split)
      : replacement_(std::move(replacement)), scheme_(scheme), split_(split) {}
  void apply(const PieceList::Piece& piece, PieceList& out) override;

 private:
  std::string replacement_;
  PrependScheme scheme_;
  bool split_;
};

}  // namespace moerun
