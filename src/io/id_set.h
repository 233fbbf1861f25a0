#pragma once
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "moerun/record.h"

namespace moerun {

/// Which ids an input has and where: about 50 bytes an id, whatever its length. Ids are told apart by 128
/// bits of SHA-256, which no two different ids share.
class IdSet {
 public:
  /// Adds an id that stands at `place`; when it was added before, nothing changes and that place is returned.
  /// The integer 7 and the text "7" are two ids.
  std::optional<uint64_t> add(std::string_view id, IdKind kind, uint64_t place);

 private:
  struct Entry {
    uint64_t low = 0, high = 0, place = kFree;
  };
  static constexpr uint64_t kFree = UINT64_MAX;

  Entry& find(uint64_t low, uint64_t high);
  void grow();

  std::vector<Entry> table_;  // open addressing; its size is a power of two
  size_t count_ = 0;
};

}  // namespace moerun
