#include "job/faults.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <string_view>

#include "moerun/error.h"

namespace moerun {
namespace {

/// What the sentences of a kind share: numbers and what stands in quotes are left out, and a value that is
/// shown after ", not ".
std::string shape_of(std::string_view what) {
  std::string shape;
  for (size_t at = 0; at < what.size() && shape.size() < 1000; ++at) {
    const char c = what[at];
    const bool opens =
        c == '"' || (c == '\'' && (at == 0 || !std::isalnum(static_cast<unsigned char>(what[at - 1]))));
    const size_t end = opens ? what.find(c, at + 1) : std::string_view::npos;
    if (end != std::string_view::npos) {
      shape += c;
      at = end;
    } else if (std::isdigit(static_cast<unsigned char>(c))) {
      if (!shape.ends_with('#')) shape += '#';
    } else if (what.substr(at).starts_with(", not ")) {
      at = std::min(what.find("; ", at), what.size()) - 1;  // the next fault of the row
    } else {
      shape += c;
    }
  }
  return shape;
}

}  // namespace

void Faults::add(const std::string& where, const std::string& what) {
  ++count_;
  const std::string shape = shape_of(what);
  auto known = numbers_.find(shape);
  if (known == numbers_.end()) {
    if (kinds_.size() == kMostKinds) {
      ++of_other_kinds_;
      return;
    }
    known = numbers_.emplace(shape, kinds_.size()).first;
    kinds_.emplace_back();
  }
  Kind& kind = kinds_[known->second];
  ++kind.count;
  if (kind.first.size() < kMostOfAKind) kind.first.push_back({where, what});
}

void Faults::add(const std::string& what) { add("", what); }

void Faults::throw_if_any() const {
  if (count_ == 0) return;
  std::vector<std::string> lines;
  for (const Kind& kind : kinds_) {
    uint64_t told = 0;
    std::vector<std::string> also;  // places of the sentence that was told last
    for (const Fault& fault : kind.first) {
      if (told > 0 && fault.what == kind.first[0].what) {
        if (!fault.where.empty()) also.push_back(fault.where);
        continue;
      }
      lines.push_back(fault.where.empty() ? fault.what : fmt::format("{}: {}", fault.where, fault.what));
      ++told;
    }
    if (told == kind.count) continue;
    const bool more_places = also.size() < kind.count - told;
    lines.push_back(also.empty() ? fmt::format("… and {} more like this", kind.count - told)
                                 : fmt::format("… and {} more like this: {}{}", kind.count - told,
                                               fmt::join(also, ", "), more_places ? ", …" : ""));
  }
  if (of_other_kinds_ > 0) lines.push_back(fmt::format("… and {} more", of_other_kinds_));
  throw BadInput(fmt::format("{}", fmt::join(lines, "\n")));
}

}  // namespace moerun
