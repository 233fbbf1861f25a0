#include "text/tokenize_command.h"

#include <algorithm>
#include <sstream>

#include "tests/fuzz/harness.h"

namespace moerun::fuzz {

/// The standard input of `moerun tokenize`: a line out for each line in.
void read_tokenize_lines(std::string_view bytes) {
  std::istringstream in{std::string(bytes)};
  std::ostringstream out;
  tokenize_main("data/tiny-moe", in, out);
  const auto lines = std::count(bytes.begin(), bytes.end(), '\n') + (!bytes.empty() && bytes.back() != '\n');
  const std::string answers = out.str();
  check(std::count(answers.begin(), answers.end(), '\n') == lines, "tokenize answers each line with a line");
}

}  // namespace moerun::fuzz
