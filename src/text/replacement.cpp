#include "text/replacement.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "moerun/error.h"

namespace moerun {

void check_replaced_bytes(size_t bytes) {
  if (bytes > kMaxReplacedBytes)
    throw BadInput(
        fmt::format("the text grows beyond {} MiB by the tokenizer's replacements", kMaxReplacedBytes >> 20));
}

TextPattern::TextPattern(const Component& component) {
  const nlohmann::json& pattern = component.member("pattern");
  const bool one = pattern.is_object() && pattern.size() == 1;
  if (one && pattern.contains("Regex") && pattern["Regex"].is_string())
    regex_.emplace(pattern["Regex"].get<std::string>());
  else if (one && pattern.contains("String") && pattern["String"].is_string() && !pattern["String"].empty())
    literal_ = pattern["String"];
  else
    component.fail("has a pattern that is neither a Regex nor a String");
  if (!regex_ && literal_.empty()) component.fail("has an empty String for a pattern");
}

void TextPattern::find_all(std::string_view text, std::vector<std::pair<size_t, size_t>>& matches) {
  if (regex_) return regex_->find_all(text, matches);
  matches.clear();
  for (size_t at = text.find(literal_); at != std::string_view::npos;
       at = text.find(literal_, at + literal_.size()))
    matches.emplace_back(at, at + literal_.size());
}

std::string Replacement::apply(std::string_view text) {
  pattern_.find_all(text, matches_);
  size_t added = 0;
  if (__builtin_mul_overflow(matches_.size(), content_.size(), &added)) added = kMaxReplacedBytes;
  check_replaced_bytes(text.size() + added);
  std::string out;
  size_t end = 0;  // of the last match
  for (const auto& [match_begin, match_end] : matches_) {
    out.append(text, end, match_begin - end).append(content_);
    end = match_end;
  }
  return out.append(text, end);
}

Replacement read_replacement(const Component& component) {
  component.known_keys({"pattern", "content"});
  return Replacement(TextPattern(component), component.text("content"));
}

}  // namespace moerun
