#pragma once
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/component.h"

namespace moerun {

/// Text between the borders that merges may not cross. The views are of the text that was split or of
/// `storage`.
struct PieceList {
  struct Piece {
    std::string_view text;
    bool at_start;  ///< of the whole text, in front of which nothing stands
  };
  std::vector<Piece> pieces;
  std::deque<std::string> storage;
};

/// One step: what becomes of a piece.
class PreTokenizerStep {
 public:
  virtual ~PreTokenizerStep() = default;
  /// Appends what becomes of `piece`, which is not empty; none of it is empty.
  virtual void apply(const PieceList::Piece& piece, PieceList& out) = 0;
};

/// The `pre_tokenizer` of a tokenizer.json: Split, ByteLevel, Digits, Metaspace or a Sequence of them. Not
/// for use by two threads at once.
class Pretokenizer {
 public:
  /// Throws BadInput that names what is not known.
  explicit Pretokenizer(const Component& component);

  /// Replaces `out` by the pieces of valid UTF-8. `at_start`: nothing stands before `text`.
  void split(std::string_view text, bool at_start, PieceList& out);

  /// Whether pieces go on in the byte-level alphabet: the vocabulary then spells bytes, else characters.
  bool byte_level() const { return byte_level_; }

 private:
  void add(const Component& component);

  std::vector<std::unique_ptr<PreTokenizerStep>> steps_;
  bool byte_level_ = false;
  std::vector<PieceList::Piece> scratch_;
};

}  // namespace moerun
