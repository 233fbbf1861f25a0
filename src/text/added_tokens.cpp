#include "text/added_tokens.h"

#include <algorithm>

#include "text/unicode.h"

namespace moerun {
namespace {

bool inside_word(std::string_view text, size_t begin, size_t end) {
  const bool word_before = begin > 0 && [&] { return is_word(previous_code_point(text, begin)); }();
  const bool word_after = end < text.size() && is_word(code_point_at(text, end));
  return word_before || word_after;
}

size_t skip_white_space_back(std::string_view text, size_t pos) {
  while (pos > 0) {
    size_t previous = pos;
    if (!is_white_space(previous_code_point(text, previous))) break;
    pos = previous;
  }
  return pos;
}

size_t skip_white_space(std::string_view text, size_t pos) {
  while (pos < text.size() && is_white_space(code_point_at(text, pos))) pos += utf8_unit_at(text, pos).length;
  return pos;
}

}  // namespace

AddedTokenSplitter::AddedTokenSplitter(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::erase_if(tokens_, [](const AddedToken& token) { return token.content.empty(); });
  std::stable_sort(tokens_.begin(), tokens_.end(), [](const AddedToken& a, const AddedToken& b) {
    return a.content.size() > b.content.size();
  });
  for (size_t i = 0; i < tokens_.size(); ++i)
    by_first_byte_[static_cast<uint8_t>(tokens_[i].content[0])].push_back(i);
}

const AddedToken* AddedTokenSplitter::match_at(std::string_view text, size_t pos) const {
  for (size_t i : by_first_byte_[static_cast<uint8_t>(text[pos])])
    if (text.substr(pos, tokens_[i].content.size()) == tokens_[i].content) return &tokens_[i];
  return nullptr;
}

void AddedTokenSplitter::split(std::string_view text, std::vector<Part>& parts) const {
  size_t taken = 0;  // end of the last part
  for (size_t pos = 0; pos < text.size();) {
    const AddedToken* token = match_at(text, pos);
    if (token == nullptr) {
      ++pos;
      continue;
    }
    size_t begin = pos, end = pos + token->content.size();
    pos = end;
    if (token->single_word && inside_word(text, begin, end)) continue;
    if (token->lstrip) begin = std::max(skip_white_space_back(text, begin), taken);
    if (token->rstrip) end = skip_white_space(text, end);
    if (taken < begin) parts.push_back({text.substr(taken, begin - taken), -1});
    parts.push_back({text.substr(begin, end - begin), token->id});
    taken = end;
  }
  if (taken < text.size()) parts.push_back({text.substr(taken), -1});
}

}  // namespace moerun
