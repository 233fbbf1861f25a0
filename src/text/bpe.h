#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace moerun {

/// Two neighbouring tokens that become one. A merge of lower rank goes first.
struct Merge {
  int32_t left = 0, right = 0, merged = 0;
};

/// What merging starts from: the tokens of a piece's bytes, or of its characters.
struct BpeAlphabet {
  bool byte_level = false;
  /// [byte] Its token: of the byte-level alphabet, or "<0xE2>" of byte fallback; -1: none.
  std::array<int32_t, 256> byte_ids;
  std::unordered_map<char32_t, int32_t> character_ids;  ///< not byte-level: tokens of one character
  /// Not byte-level: the token of a character that is none and whose bytes are not all tokens; -1: such a
  /// character is refused.
  int32_t unknown_id = -1;
  bool fuse_unknown = false;  ///< neighbours that are unknown are one token
};

/// Byte-pair encoding of one piece (Sennrich et al., arXiv:1508.07909): while any neighbours have a merge,
/// the pair of lowest rank is merged, leftmost first. Not for use by two threads at once: pieces seen are
/// remembered.
class Bpe {
 public:
  struct PieceHash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
  };
  using WholePieces = std::unordered_map<std::string, int32_t, PieceHash, std::equal_to<>>;

  /// `merges` in order of rank, of equal pairs the last counts. `whole`: pieces that are one token whatever
  /// the merges say (`ignore_merges`).
  Bpe(BpeAlphabet alphabet, const std::vector<Merge>& merges, WholePieces whole);

  /// Appends the ids of `piece`, valid UTF-8 unless the alphabet is byte-level. O(n log n) in its length.
  /// Throws BadInput that names a character for which there is no token.
  void encode(std::string_view piece, std::vector<int32_t>& ids);

 private:
  static constexpr uint32_t kNoRank = UINT32_MAX;
  static constexpr uint64_t kEmptySlot = UINT64_MAX;
  struct Slot {
    uint64_t pair = kEmptySlot;  // left << 32 | right
    uint32_t rank = kNoRank;
    int32_t merged = -1;
  };
  /// One symbol of a long piece: a node of a doubly linked list over the piece's symbols.
  struct Symbol {
    int32_t id = 0;
    int32_t previous = -1, next = -1;
    uint32_t rank = kNoRank;  // of the merge with the next symbol
  };

  Slot find(int32_t left, int32_t right) const;
  void insert(const Merge& merge, uint32_t rank);
  void read_symbols(std::string_view piece);
  void merge_into(std::string_view piece, std::vector<int32_t>& ids);
  void merge_few(std::vector<int32_t>& ids) const;
  void merge_many(std::vector<int32_t>& ids) const;

  BpeAlphabet alphabet_;
  std::vector<Slot> slots_;  // open addressing, at most half full
  WholePieces whole_;
  std::vector<int32_t> symbols_;  // of the piece in work
  std::unordered_map<std::string, std::vector<int32_t>, PieceHash, std::equal_to<>> cache_;
};

}  // namespace moerun
