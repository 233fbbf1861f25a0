#include "io/id_set.h"

#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

namespace moerun {

IdSet::Entry& IdSet::find(uint64_t low, uint64_t high) {
  const size_t mask = table_.size() - 1;
  for (size_t at = low & mask;; at = (at + 1) & mask) {
    Entry& entry = table_[at];
    if (entry.place == kFree || (entry.low == low && entry.high == high)) return entry;
  }
}

void IdSet::grow() {
  std::vector<Entry> old(std::max<size_t>(1024, table_.size() * 2));
  old.swap(table_);
  for (const Entry& entry : old)
    if (entry.place != kFree) find(entry.low, entry.high) = entry;
}

std::optional<uint64_t> IdSet::add(std::string_view id, IdKind kind, uint64_t place) {
  if (count_ * 8 >= table_.size() * 7) grow();
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest{};
  std::string text(1, static_cast<char>(kind));
  text += id;
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  uint64_t key[2];
  std::memcpy(key, digest.data(), sizeof(key));
  Entry& entry = find(key[0], key[1]);
  if (entry.place != kFree) return entry.place;
  entry = {key[0], key[1], place};
  ++count_;
  return std::nullopt;
}

}  // namespace moerun
