#include "text/bpe.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <queue>

#include "moerun/error.h"
#include "text/unicode.h"

namespace moerun {
namespace {

// Words come back, sentences do not. 64 Ki pieces of at most 64 bytes are about 10 MB.
constexpr size_t kMaxCachedPieces = 1 << 16;
constexpr size_t kMaxCachedBytes = 64;

// Up to here, scanning an array for the lowest rank beats a heap.
constexpr size_t kMaxScanned = 96;

uint64_t pair_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

/// Finalizer of MurmurHash3 (Appleby, public domain): every input bit reaches the low bits that index the
/// table.
uint64_t mix(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdULL;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ULL;
  return x ^ x >> 33;
}

}  // namespace

Bpe::Bpe(BpeAlphabet alphabet, const std::vector<Merge>& merges, WholePieces whole)
    : alphabet_(std::move(alphabet)),
      slots_(std::bit_ceil(std::max<size_t>(2 * merges.size(), 2))),
      whole_(std::move(whole)) {
  for (size_t rank = 0; rank < merges.size(); ++rank) insert(merges[rank], static_cast<uint32_t>(rank));
}

void Bpe::insert(const Merge& merge, uint32_t rank) {
  const uint64_t pair = pair_of(merge.left, merge.right);
  size_t i = mix(pair) & (slots_.size() - 1);
  while (slots_[i].pair != kEmptySlot && slots_[i].pair != pair) i = (i + 1) & (slots_.size() - 1);
  slots_[i] = {pair, rank, merge.merged};
}

Bpe::Slot Bpe::find(int32_t left, int32_t right) const {
  const uint64_t pair = pair_of(left, right);
  size_t i = mix(pair) & (slots_.size() - 1);
  while (slots_[i].pair != pair && slots_[i].pair != kEmptySlot) i = (i + 1) & (slots_.size() - 1);
  return slots_[i];
}

void Bpe::encode(std::string_view piece, std::vector<int32_t>& ids) {
  if (piece.size() > kMaxCachedBytes) return merge_into(piece, ids);
  auto cached = cache_.find(piece);
  if (cached == cache_.end()) {
    if (cache_.size() == kMaxCachedPieces) cache_.clear();
    std::vector<int32_t> piece_ids;
    merge_into(piece, piece_ids);
    cached = cache_.emplace(piece, std::move(piece_ids)).first;
  }
  ids.insert(ids.end(), cached->second.begin(), cached->second.end());
}

void Bpe::merge_into(std::string_view piece, std::vector<int32_t>& ids) {
  if (!whole_.empty())
    if (const auto whole = whole_.find(piece); whole != whole_.end()) return ids.push_back(whole->second);
  read_symbols(piece);
  if (symbols_.size() <= kMaxScanned)
    merge_few(ids);
  else
    merge_many(ids);
}

void Bpe::read_symbols(std::string_view piece) {
  symbols_.clear();
  const auto byte_id = [&](char byte) { return alphabet_.byte_ids[static_cast<uint8_t>(byte)]; };
  if (alphabet_.byte_level) {
    for (const char byte : piece) symbols_.push_back(byte_id(byte));
    return;
  }
  bool unknown_open = false;  // an unknown token to be put before the next known character
  for (size_t pos = 0; pos < piece.size();) {
    const char32_t c = code_point_at(piece, pos);
    const std::string_view bytes = piece.substr(pos, utf8_length(static_cast<uint8_t>(piece[pos])));
    pos += bytes.size();
    if (const auto known = alphabet_.character_ids.find(c); known != alphabet_.character_ids.end()) {
      if (unknown_open) symbols_.push_back(alphabet_.unknown_id);
      unknown_open = false;
      symbols_.push_back(known->second);
    } else if (std::all_of(bytes.begin(), bytes.end(), [&](char byte) { return byte_id(byte) >= 0; })) {
      for (const char byte : bytes) symbols_.push_back(byte_id(byte));
    } else if (alphabet_.unknown_id < 0) {
      throw BadInput(fmt::format("the tokenizer has no token for U+{:04X}", static_cast<uint32_t>(c)));
    } else {
      if (unknown_open && !alphabet_.fuse_unknown) symbols_.push_back(alphabet_.unknown_id);
      unknown_open = true;
    }
  }
  if (unknown_open) symbols_.push_back(alphabet_.unknown_id);
}

void Bpe::merge_few(std::vector<int32_t>& ids) const {
  std::array<int32_t, kMaxScanned> symbols_buffer;
  std::array<uint32_t, kMaxScanned> ranks_buffer;
  int32_t* const symbols = symbols_buffer.data();  // [n]
  uint32_t* const ranks = ranks_buffer.data();     // [n - 1] of the merge of symbols i and i + 1
  size_t n = symbols_.size();
  std::copy(symbols_.begin(), symbols_.end(), symbols);
  for (size_t i = 0; i + 1 < n; ++i) ranks[i] = find(symbols[i], symbols[i + 1]).rank;
  while (n > 1) {
    const auto i = static_cast<size_t>(std::min_element(ranks, ranks + n - 1) - ranks);
    if (ranks[i] == kNoRank) break;
    symbols[i] = find(symbols[i], symbols[i + 1]).merged;
    std::copy(symbols + i + 2, symbols + n, symbols + i + 1);
    std::copy(ranks + i + 1, ranks + n - 1, ranks + i);
    --n;
    if (i > 0) ranks[i - 1] = find(symbols[i - 1], symbols[i]).rank;
    if (i + 1 < n) ranks[i] = find(symbols[i], symbols[i + 1]).rank;
  }
  ids.insert(ids.end(), symbols, symbols + n);
}

void Bpe::merge_many(std::vector<int32_t>& ids) const {
  const auto n = static_cast<int32_t>(symbols_.size());
  std::vector<Symbol> symbols(symbols_.size());
  // Rank in the high half, position in the low one: the smallest is the leftmost of the lowest rank.
  std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<>> queue;
  const auto rank_pair_at = [&](int32_t i) {
    Symbol& symbol = symbols[static_cast<size_t>(i)];
    symbol.rank =
        symbol.next < 0 ? kNoRank : find(symbol.id, symbols[static_cast<size_t>(symbol.next)].id).rank;
    if (symbol.rank != kNoRank)
      queue.push(static_cast<uint64_t>(symbol.rank) << 32 | static_cast<uint32_t>(i));
  };
  for (int32_t i = 0; i < n; ++i)
    symbols[static_cast<size_t>(i)] = {symbols_[static_cast<size_t>(i)], i - 1, i + 1 < n ? i + 1 : -1,
                                       kNoRank};
  for (int32_t i = 0; i < n; ++i) rank_pair_at(i);

  while (!queue.empty()) {
    const auto rank = static_cast<uint32_t>(queue.top() >> 32);
    const auto i = static_cast<int32_t>(queue.top() & UINT32_MAX);
    queue.pop();
    Symbol& left = symbols[static_cast<size_t>(i)];
    if (left.rank != rank) continue;  // this pair has changed since, or is gone
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    left.id = find(left.id, right.id).merged;
    left.next = right.next;
    right.rank = kNoRank;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = i;
    if (left.previous >= 0) rank_pair_at(left.previous);
    rank_pair_at(i);
  }
  for (int32_t i = 0; i >= 0; i = symbols[static_cast<size_t>(i)].next)
    ids.push_back(symbols[static_cast<size_t>(i)].id);
}

}  // namespace moerun
