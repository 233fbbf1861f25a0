#include "job/nearest.h"

#include <algorithm>
#include <cstdint>
#include <numeric>

namespace moerun {
namespace {

struct Name {
  std::string_view section, last;
};

Name split(std::string_view name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return {"", name};
  return {name.substr(0, dot), name.substr(dot + 1)};
}

}  // namespace

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);  // distances of a's first i letters to each beginning of b
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t changed = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({changed, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

std::string nearest(std::string_view unknown, const std::vector<std::string>& known) {
  const Name name = split(unknown.substr(0, 256));
  std::string best;
  size_t least = SIZE_MAX;
  for (const std::string& candidate : known) {
    const Name other = split(candidate);
    const size_t distance = edit_distance(name.last, other.last) + (name.section == other.section ? 0 : 1);
    if (distance < least) {
      least = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace moerun
