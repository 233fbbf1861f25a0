#pragma once
#include <openssl/evp.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace moerun {

/// SHA-256 of what is given to it, in pieces.
class Sha256 {
 public:
  using Digest = std::array<unsigned char, 16>;  // its first half

  Sha256();
  void update(std::string_view bytes);
  Digest digest() const;    ///< of everything so far; goes on
  std::string hex() const;  ///< all of it, 64 digits

 private:
  std::array<unsigned char, 32> whole() const;

  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

/// What an input held when it was checked: a digest for each of its parts, in order, each of everything up to
/// the part's end. Rows are handed out from parts that still have their digests, so an input that changes
/// while a job runs is noticed before a row of it is answered. Memory: 24 bytes a part, of which an input has
/// at most 65,536 (text files) or one for each 4,096 rows or million tokens (HDF5).
struct ContentSums {
  std::vector<uint64_t> begins;  ///< of each part: its first byte, or row
  std::vector<Sha256::Digest> digests;
  uint64_t part_bytes = 0;  ///< text files: of each part but the last
  std::string checksum;     ///< SHA-256 (hex) of everything
};

}  // namespace moerun
