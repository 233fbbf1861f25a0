#include "job/faults.h"

#include <fmt/format.h>

#include "moerun/error.h"

namespace moerun {

void Faults::add(const std::string& where, const std::string& what) {
  add(fmt::format("{}: {}", where, what));
}

void Faults::add(const std::string& what) {
  if (++count_ <= kMostFaults) lines_.push_back(what);
}

void Faults::throw_if_any() const {
  if (count_ == 0) return;
  std::string text = fmt::format("{}", fmt::join(lines_, "\n"));
  if (count_ > kMostFaults) text += fmt::format("\n… and {} more", count_ - kMostFaults);
  throw BadInput(text);
}

}  // namespace moerun
