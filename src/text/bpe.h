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

/// Byte-pair encoding of one piece (Sennrich et al., arXiv:1508.07909): while any neighbours have a merge,
/// the pair of lowest rank is merged, leftmost first. Not for use by two threads at once: pieces seen are
/// remembered.
class Bpe {
 public:
  /// `byte_ids[b]` is the token of the single byte b; `merges` in order of rank, of equal pairs the last
  /// counts.
  Bpe(const std::array<int32_t, 256>& byte_ids, const std::vector<Merge>& merges);

  /// Appends the ids of `piece`. O(n log n) in its length.
  void encode(std::string_view piece, std::vector<int32_t>& ids);

 private:
  static constexpr uint32_t kNoRank = UINT32_MAX;
  static constexpr uint64_t kEmptySlot = UINT64_MAX;
  struct Slot {
    uint64_t pair = kEmptySlot;  // left << 32 | right
    uint32_t rank = kNoRank;
    int32_t merged = -1;
  };
  struct PieceHash {
    using is_transparent = void;
    size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
  };
  /// One symbol of a long piece: a node of a doubly linked list over the piece's bytes.
  struct Symbol {
    int32_t id = 0;
    int32_t previous = -1, next = -1;
    uint32_t rank = kNoRank;  // of the merge with the next symbol
  };

  Slot find(int32_t left, int32_t right) const;
  void insert(const Merge& merge, uint32_t rank);
  void encode_short(std::string_view piece, std::vector<int32_t>& ids) const;
  void encode_long(std::string_view piece, std::vector<int32_t>& ids) const;

  std::array<int32_t, 256> byte_ids_;
  std::vector<Slot> slots_;  // open addressing, at most half full
  std::unordered_map<std::string, std::vector<int32_t>, PieceHash, std::equal_to<>> cache_;
};

}  // namespace moerun
