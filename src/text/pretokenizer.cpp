#include "text/pretokenizer.h"

namespace moerun {

Pretokenizer::Pretokenizer(const std::vector<std::string>& patterns) {
  for (const std::string& regex : patterns) patterns_.emplace_back(regex);
}

void Pretokenizer::split(std::string_view text, std::vector<std::string_view>& pieces) {
  if (patterns_.empty()) {
    if (!text.empty()) pieces.push_back(text);
    return;
  }
  if (patterns_.size() == 1) return split_by(patterns_[0], text, pieces);
  std::vector<std::string_view> current{text};
  for (SplitRegex& pattern : patterns_) {
    scratch_.clear();
    for (std::string_view piece : current) split_by(pattern, piece, scratch_);
    current.swap(scratch_);
  }
  pieces.insert(pieces.end(), current.begin(), current.end());
}

void Pretokenizer::split_by(SplitRegex& pattern, std::string_view text,
                            std::vector<std::string_view>& pieces) {
  pattern.find_all(text, matches_);
  size_t end = 0;  // of the last piece
  for (const auto& [match_begin, match_end] : matches_) {
    if (match_begin > end) pieces.push_back(text.substr(end, match_begin - end));
    pieces.push_back(text.substr(match_begin, match_end - match_begin));
    end = match_end;
  }
  if (end < text.size()) pieces.push_back(text.substr(end));
}

}  // namespace moerun
