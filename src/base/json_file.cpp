#include "base/json_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/file_descriptor.h"
#include "moerun/error.h"

namespace moerun {

namespace {

/// Whether brackets outside of strings are more than `most` deep. Of a text that is no JSON it may be either.
bool is_nested_deeper(std::string_view text, int most) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\')
        ++i;
      else if (c == '"')
        in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > most) return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

}  // namespace

nlohmann::json parse_json_object(std::string_view text, const std::string& name, const JsonLimits& limits) {
  if (text.size() > limits.bytes)
    throw BadInput(fmt::format("{}: has {} bytes, and at most {} are read", name, text.size(), limits.bytes));
  if (is_nested_deeper(text, limits.nesting))
    throw BadInput(fmt::format("{}: is nested more than {} deep", name, limits.nesting));
  nlohmann::json json = nlohmann::json::parse(text.begin(), text.end(), nullptr, false);
  if (!json.is_object()) throw BadInput(fmt::format("{}: is no JSON object", name));
  return json;
}

std::string read_text_file(const std::string& path, uint64_t most_bytes) {
  const auto fail = [&](const std::string& what) { throw BadInput(fmt::format("{}: {}", path, what)); };
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status {};
  if (!file || fstat(file.get(), &status) != 0)
    fail(fmt::format("cannot be read ({})", std::strerror(errno)));
  if (!S_ISREG(status.st_mode)) fail("is no regular file");
  const auto size = static_cast<uint64_t>(status.st_size);
  if (size > most_bytes) fail(fmt::format("has {} bytes, and at most {} are read", size, most_bytes));
  std::string text(size, '\0');
  size_t have = 0;
  while (have < text.size()) {
    const ssize_t got = ::read(file.get(), text.data() + have, text.size() - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(fmt::format("cannot be read ({})", std::strerror(errno)));
    if (got == 0) break;
    have += static_cast<size_t>(got);
  }
  text.resize(have);
  return text;
}

}  // namespace moerun
