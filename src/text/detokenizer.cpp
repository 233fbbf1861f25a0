#include "text/detokenizer.h"

#include "text/unicode.h"

namespace moerun {

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens)
    : tokenizer_(&tokenizer),
      skip_special_tokens_(skip_special_tokens),
      strip_left_(tokenizer.decode_plan().strip_max) {}

std::string Detokenizer::feed(int32_t id) {
  std::string text;
  if (!tokenizer_->is_token(id) || (skip_special_tokens_ && tokenizer_->is_special(id))) return text;
  const std::string_view own = tokenizer_->token_text(id, first_);
  first_ = false;
  if (tokenizer_->decode_plan().byte_level) {
    held_ += own;
    held_.erase(0, append_lossy_utf8(held_, text));
    return text;
  }
  if (const auto byte = tokenizer_->decode_plan().fallback_byte(own)) {
    held_ += static_cast<char>(*byte);
    return text;
  }
  text = run_text();
  held_.clear();
  text += own;
  strip(text, strip_left_);
  return text;
}

/// The text of the run of bytes: as UTF-8 where all of it is, else a U+FFFD for each.
std::string Detokenizer::run_text() const {
  if (!find_invalid_utf8(held_)) return held_;
  std::string text;
  for (size_t i = 0; i < held_.size(); ++i) text += kReplacementCharacter;
  return text;
}

void Detokenizer::strip(std::string& text, int64_t& left) const {
  const std::string& character = tokenizer_->decode_plan().strip;
  size_t begin = 0;
  while (left > 0 && begin < text.size()) {
    if (text.compare(begin, character.size(), character) == 0) {
      begin += character.size();
      --left;
    } else {
      left = 0;
    }
  }
  text.erase(0, begin);
}

std::string Detokenizer::provisional() const {
  if (tokenizer_->decode_plan().byte_level) return {};
  std::string text = held_;
  if (const auto invalid = find_invalid_utf8(held_)) {
    if (utf8_unit_at(held_, *invalid).kind == Utf8Unit::Kind::incomplete)
      text.resize(*invalid);
    else
      text = run_text();  // spoilt already
  }
  int64_t left = strip_left_;
  strip(text, left);
  return text;
}

std::string Detokenizer::finish() {
  const bool byte_level = tokenizer_->decode_plan().byte_level;
  std::string text = byte_level && !held_.empty() ? std::string(kReplacementCharacter) : run_text();
  strip(text, strip_left_);
  *this = Detokenizer(*tokenizer_, skip_special_tokens_);
  return text;
}

}  // namespace moerun
