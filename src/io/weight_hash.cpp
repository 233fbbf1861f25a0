#include "io/weight_hash.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <thread>

#include "base/file_descriptor.h"
#include "moerun/error.h"
#include "text/checksum.h"

namespace moerun {

namespace {

constexpr size_t kHashBytes = sizeof(XXH128_canonical_t);
constexpr size_t kSlice = 1 << 20;  // stays in the cache between reading and hashing

uint64_t size_of_file(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0)
    throw BadInput(fmt::format("{}: cannot be read ({})", path, std::strerror(errno)));
  return static_cast<uint64_t>(status.st_size);
}

struct Piece {
  const std::string* path = nullptr;
  uint64_t begin = 0, bytes = 0;
};

struct Listed {
  std::string text;  // HashedPieces::listing
  std::vector<Piece> pieces;
};

Listed list_pieces(const std::vector<std::string>& files) {
  Listed out;
  for (const std::string& path : files) {
    const uint64_t size = size_of_file(path);
    out.text += fmt::format("{} {}\n", path.substr(path.rfind('/') + 1), size);
    for (uint64_t begin = 0; begin < size; begin += kHashPieceBytes)
      out.pieces.push_back({&path, begin, std::min(kHashPieceBytes, size - begin)});
  }
  return out;
}

void hash_piece(const Piece& piece, std::vector<char>& slice, char* out) {
  const FileDescriptor file(::open(piece.path->c_str(), O_RDONLY | O_CLOEXEC));
  const auto fail = [&](const char* what) { throw BadInput(fmt::format("{}: {}", *piece.path, what)); };
  if (!file) fail(std::strerror(errno));
  // All of the piece is asked for at once: a disk or a file server is not waited for slice by slice. Advice
  // alone.
  static_cast<void>(posix_fadvise(file.get(), static_cast<off_t>(piece.begin),
                                  static_cast<off_t>(piece.bytes), POSIX_FADV_WILLNEED));
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), XXH3_freeState);
  XXH3_128bits_reset(state.get());
  for (uint64_t done = 0; done < piece.bytes;) {
    const ssize_t got = pread(file.get(), slice.data(), std::min<uint64_t>(slice.size(), piece.bytes - done),
                              static_cast<off_t>(piece.begin + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(std::strerror(errno));
    if (got == 0) fail("became shorter while it was read");
    XXH3_128bits_update(state.get(), slice.data(), static_cast<size_t>(got));
    done += static_cast<uint64_t>(got);
  }
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state.get()));
  std::memcpy(out, &canonical, kHashBytes);
}

}  // namespace

HashedPieces hash_pieces(const std::vector<std::string>& files, const HashShare& share,
                         const std::function<void(uint64_t, uint64_t)>& read) {
  const Listed listed = list_pieces(files);
  const std::vector<Piece>& pieces = listed.pieces;
  const auto parts = static_cast<size_t>(share.parts), part = static_cast<size_t>(share.part);
  const size_t first = pieces.size() * part / parts, last = pieces.size() * (part + 1) / parts;
  HashedPieces out{.listing = listed.text, .num_pieces = pieces.size(), .first = first};
  out.hashes.resize((last - first) * kHashBytes);
  uint64_t of_bytes = 0;
  for (size_t i = first; i < last; ++i) of_bytes += pieces[i].bytes;
  std::atomic<size_t> next{first};
  std::mutex mutex;
  std::exception_ptr thrown;
  const auto work = [&] {
    try {
      std::vector<char> slice(kSlice);
      for (size_t i = next++; i < last; i = next++) {
        hash_piece(pieces[i], slice, out.hashes.data() + (i - first) * kHashBytes);
        read(pieces[i].bytes, of_bytes);
      }
    } catch (...) {
      next = last;
      const std::lock_guard lock(mutex);
      if (!thrown) thrown = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int i = 1; i < share.threads; ++i) threads.emplace_back(work);
    work();
  }
  if (thrown) std::rethrow_exception(thrown);
  return out;
}

WeightsFingerprint join_pieces(std::span<const HashedPieces> readers) {
  const HashedPieces& head = readers.front();
  std::string all(head.num_pieces * kHashBytes, '\0');
  std::vector<std::optional<size_t>> reader_of(head.num_pieces);
  for (size_t reader = 0; reader < readers.size(); ++reader) {
    const HashedPieces& its = readers[reader];
    if (its.listing != head.listing) return {.one = 0, .another = reader};
    for (size_t i = 0; i < its.hashes.size() / kHashBytes; ++i) {
      const size_t piece = its.first + i;
      const std::string_view hash = std::string_view(its.hashes).substr(i * kHashBytes, kHashBytes);
      if (!reader_of[piece])
        reader_of[piece] = reader, all.replace(piece * kHashBytes, kHashBytes, hash);
      else if (std::string_view(all).substr(piece * kHashBytes, kHashBytes) != hash)
        return {.one = *reader_of[piece], .another = reader};
    }
  }
  if (std::find(reader_of.begin(), reader_of.end(), std::nullopt) != reader_of.end())
    throw Error("some of the weights were read by no rank");
  return {.text = "xxh3-128:" + sha256_hex(head.listing + all)};
}

int hash_threads(int ranks) {
  constexpr int kMost = 16;  // what a file system and the memory give is reached by then
  const int machine = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  cpu_set_t mine;
  const int cores = sched_getaffinity(0, sizeof(mine), &mine) == 0 ? CPU_COUNT(&mine) : machine;
  // A launcher that binds gives each rank its own cores.
  return std::clamp(cores < machine ? cores : machine / std::max(1, ranks), 1, kMost);
}

}  // namespace moerun
