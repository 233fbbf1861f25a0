#include "text/detokenizer.h"

#include "text/unicode.h"

namespace moerun {

std::string Detokenizer::feed(int32_t id) {
  std::string text;
  if (skip_special_tokens_ && tokenizer_->is_special(id)) return text;
  held_ += tokenizer_->token_bytes(id);
  held_.erase(0, append_lossy_utf8(held_, text));
  return text;
}

std::string Detokenizer::finish() {
  if (held_.empty()) return {};
  held_.clear();
  return std::string(kReplacementCharacter);
}

}  // namespace moerun
