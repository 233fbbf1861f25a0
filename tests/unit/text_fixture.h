#pragma once
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "tests/catch.h"

namespace moerun {

inline const std::string kTinyModel = "data/tiny-moe";

inline std::string read_text_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + " cannot be opened; unit tests run from the repository's root");
  return {std::istreambuf_iterator<char>(file), {}};
}

template <typename Json = nlohmann::json>
std::vector<Json> read_jsonl(const std::string& path) {
  std::vector<Json> rows;
  std::istringstream lines(read_text_file(path));
  for (std::string line; std::getline(lines, line);) rows.push_back(Json::parse(line));
  return rows;
}

/// A folder of the shared golden data, where it is at hand; else says that the test is skipped.
inline std::optional<std::string> shared_folder(const std::string& name) {
  const char* root = std::getenv("MOERUN_SHARED");
  const std::string path = std::string(root != nullptr ? root : "../shared") + "/" + name;
  if (std::filesystem::exists(path)) return path;
  WARN("SKIPPED: " << path << " is not here");
  return std::nullopt;
}

inline bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

/// The message of the exception that `call` must throw.
template <typename Exception, typename Call>
std::string message_of(Call call) {
  try {
    call();
  } catch (const Exception& e) {
    return e.what();
  }
  FAIL("nothing was thrown");
  return {};
}

}  // namespace moerun
