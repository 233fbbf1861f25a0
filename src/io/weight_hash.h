#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace moerun {

/// A checkpoint's files are hashed in pieces of this many bytes (XXH3-128), so that ranks and threads share
/// the reading and the result depends on neither.
inline constexpr uint64_t kHashPieceBytes = 16u << 20;

/// Which of the pieces: those of one of `parts` about equal runs of neighbours, by so many threads.
struct HashShare {
  int part = 0, parts = 1, threads = 1;
};

/// What one reader knows of the files.
struct HashedPieces {
  std::string listing;  ///< a line a file: its name without folders, and its size
  uint64_t num_pieces = 0, first = 0;
  std::string hashes;  ///< of the pieces from `first` on, 16 bytes each
};

/// The hashes of a share's pieces. `files` are paths. Every byte is read from the file, not from a mapping: a
/// medium that fails is an error. `read` is told of bytes, and of how many the share has, from any thread.
/// Throws BadInput when a file cannot be read.
HashedPieces hash_pieces(const std::vector<std::string>& files, const HashShare& share,
                         const std::function<void(uint64_t bytes, uint64_t of_bytes)>& read);

/// What several readers know together.
struct WeightsFingerprint {
  std::string text;  ///< "xxh3-128:" and 64 hex digits: the SHA-256 of the listing and of all hashes
  size_t one = 0, another = 0;  ///< two readers that read different files; equal: all agree
};

/// Puts shares together, whoever read what; pieces that several have read are compared. Throws Error when
/// nobody has read some piece. `readers` has one or more.
WeightsFingerprint join_pieces(std::span<const HashedPieces> readers);

/// Threads for hashing where `ranks` share this process's cores.
int hash_threads(int ranks);

}  // namespace moerun
