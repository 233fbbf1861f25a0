// The fingerprint of every byte of a checkpoint: the same however ranks and threads share the reading.
#include "io/weight_hash.h"

#include <atomic>
#include <filesystem>
#include <fstream>

#include "moerun/error.h"
#include "tests/catch.h"
#include "tests/unit/temporary_directory.h"

using namespace moerun;

namespace {

void write(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::vector<HashedPieces> read_by(const std::vector<std::string>& files, int parts, int threads) {
  std::vector<HashedPieces> readers;
  std::atomic<uint64_t> bytes{0};
  for (int part = 0; part < parts; ++part)
    readers.push_back(hash_pieces(files, {.part = part, .parts = parts, .threads = threads},
                                  [&](uint64_t read, uint64_t of) {
                                    bytes += read;
                                    CHECK(read <= of);
                                  }));
  uint64_t all = 0;
  for (const std::string& file : files) all += std::filesystem::file_size(file);
  CHECK(bytes == all);  // each byte once
  return readers;
}

std::string fingerprint(const std::vector<std::string>& files, int parts, int threads) {
  const WeightsFingerprint joined = join_pieces(read_by(files, parts, threads));
  CHECK(joined.one == joined.another);
  return joined.text;
}

}  // namespace

TEST_CASE("weight hash: every byte counts, and who reads it does not", "[model]") {
  const TemporaryDirectory directory;
  const std::vector<std::string> files{directory / "a.safetensors", directory / "b.safetensors"};
  std::string large(2 * kHashPieceBytes + 12345, '\0');
  for (size_t i = 0; i < large.size(); ++i)
    large[i] = static_cast<char>((i * 2654435761U >> 13) + i / kHashPieceBytes);  // pieces differ
  write(files[0], large);
  write(files[1], "small");
  const std::string expected = fingerprint(files, 1, 1);
  for (const int parts : {1, 2, 3, 4, 8})
    for (const int threads : {1, 3}) CHECK(fingerprint(files, parts, threads) == expected);

  for (const size_t at : {size_t{0}, size_t{1000}, size_t{kHashPieceBytes}, large.size() - 1}) {
    CAPTURE(at);
    std::string other = large;
    other[at] = static_cast<char>(other[at] ^ 1);
    write(files[0], other);
    CHECK(fingerprint(files, 2, 2) != expected);
  }
  // Pieces that change places, and files that change names.
  write(files[0], large.substr(kHashPieceBytes, kHashPieceBytes) + large.substr(0, kHashPieceBytes) +
                      large.substr(2 * kHashPieceBytes));
  CHECK(fingerprint(files, 1, 1) != expected);
  write(files[0], large);
  CHECK(fingerprint(files, 1, 1) == expected);
  write(directory / "c.safetensors", "small");
  CHECK(fingerprint({files[0], directory / "c.safetensors"}, 1, 1) != expected);

  CHECK_THROWS_AS(hash_pieces({directory / "absent"}, {}, [](uint64_t, uint64_t) {}), BadInput);
}

TEST_CASE("weight hash: readers of several nodes are compared, however many each has", "[model]") {
  const TemporaryDirectory directory;
  const std::vector<std::string> here{directory / "a.safetensors"};
  std::filesystem::create_directory(directory / "there");
  const std::vector<std::string> there{directory / "there/a.safetensors"};
  std::string large(3 * kHashPieceBytes + 12345, 'x');
  write(here[0], large);
  write(there[0], large);
  const std::string expected = fingerprint(here, 1, 1);
  const auto both = [&] {
    std::vector<HashedPieces> readers = read_by(here, 2, 1);
    for (HashedPieces& reader : read_by(there, 3, 1)) readers.push_back(std::move(reader));
    return join_pieces(readers);
  };
  WeightsFingerprint joined = both();
  CHECK(joined.text == expected);
  CHECK(joined.one == joined.another);

  large[kHashPieceBytes] = 'y';  // the second piece of four, which readers 0 and 3 have read
  write(there[0], large);
  joined = both();
  CHECK(joined.one == 0);
  CHECK(joined.another == 3);

  write(there[0], large + "z");
  joined = both();
  CHECK(joined.one == 0);
  CHECK(joined.another == 2);

  std::vector<HashedPieces> some = read_by(here, 3, 1);
  some.erase(some.begin() + 1);
  CHECK_THROWS_AS(join_pieces(some), Error);
}
