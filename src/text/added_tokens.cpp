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

/// Not before `least`: what is taken already is not walked over again for each of many tokens.
size_t skip_white_space_back(std::string_view text, size_t pos, size_t least) {
  while (pos > least) {
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

AddedTokenSplitter::AddedTokenSplitter(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)), token_at_{kNone} {
  root_edges_.fill(kNone);
  for (uint32_t i = 0; i < tokens_.size(); ++i) {
    if (tokens_[i].content.empty()) continue;
    uint32_t node = 0;
    for (const char byte : tokens_[i].content) {
      const auto [edge, made] =
          edges_.emplace(uint64_t{node} << 8 | static_cast<uint8_t>(byte), token_at_.size());
      if (made) token_at_.push_back(kNone);
      if (node == 0) root_edges_[static_cast<uint8_t>(byte)] = edge->second;
      node = edge->second;
    }
    if (token_at_[node] == kNone) token_at_[node] = i;
  }
}

const AddedToken* AddedTokenSplitter::match_at(std::string_view text, size_t pos) const {
  uint32_t node = root_edges_[static_cast<uint8_t>(text[pos])], longest = kNone;
  while (node != kNone) {
    if (token_at_[node] != kNone) longest = token_at_[node];
    if (++pos == text.size()) break;
    const auto edge = edges_.find(uint64_t{node} << 8 | static_cast<uint8_t>(text[pos]));
    node = edge == edges_.end() ? kNone : edge->second;
  }
  return longest == kNone ? nullptr : &tokens_[longest];
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
    if (token->lstrip) begin = skip_white_space_back(text, begin, taken);
    if (token->rstrip) end = skip_white_space(text, end);
    if (taken < begin) parts.push_back({text.substr(taken, begin - taken), -1});
    parts.push_back({text.substr(begin, end - begin), token->id});
    taken = end;
  }
  if (taken < text.size()) parts.push_back({text.substr(taken), -1});
}

}  // namespace moerun
