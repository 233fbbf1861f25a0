#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "moerun/error.h"
#include "tests/unit/temporary_directory.h"

/// Fuzz harnesses: one function a reader, which hands it bytes of any kind. A reader may take them or refuse
/// them with moerun::Error; whatever else leaves it (another exception, a signal, a sanitizer's report, more
/// than a gigabyte or some seconds) is a finding, and so is an answer that contradicts itself (check()).
namespace moerun::fuzz {

using Read = void (*)(std::string_view bytes);

struct Harness {
  std::string_view name;  ///< also that of its folder in tests/fuzz/corpus
  Read read;
};

const std::vector<Harness>& harnesses();

/// One input through a harness; a refusal is a right answer.
void run(const Harness& harness, std::string_view bytes);

/// What holds whatever the input. Not moerun::Error: nothing may take it for a refusal.
inline void check(bool holds, const char* what) {
  if (!holds) throw std::logic_error(what);
}

/// Whether a call ends by refusing its input.
template <typename Call>
bool refuses(Call call) {
  try {
    call();
    return false;
  } catch (const Error&) {
    return true;
  }
}

/// A directory of this process for readers of files; in memory where the system has such a place.
inline const std::string& scratch() {
  static const TemporaryDirectory directory;
  return directory.path();
}

/// Writes `bytes` as `name` in scratch(); returns the path.
inline std::string write_scratch(const std::string& name, std::string_view bytes) {
  std::string path = scratch() + "/" + name;
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return path;
}

inline std::string read_all(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  check(file.is_open(), "a file of the repository is not there: run from the repository's root");
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Takes the part before the next `separator` off the front of `bytes`; all of it when there is none.
inline std::string_view take_until(std::string_view& bytes, char separator) {
  const size_t at = std::min(bytes.find(separator), bytes.size());
  const std::string_view part = bytes.substr(0, at);
  bytes.remove_prefix(std::min(at + 1, bytes.size()));
  return part;
}

/// Takes one byte off the front; 0 at the end.
inline unsigned take_byte(std::string_view& bytes) {
  if (bytes.empty()) return 0;
  const auto byte = static_cast<unsigned char>(bytes.front());
  bytes.remove_prefix(1);
  return byte;
}

inline constexpr int64_t kVocabulary = 4096;  // data/tiny-moe's

}  // namespace moerun::fuzz
