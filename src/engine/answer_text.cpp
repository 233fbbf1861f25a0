#include "engine/answer_text.h"

#include <algorithm>

namespace moerun {
namespace {

/// Where the first occurrence that ends behind `old_end` begins in `text`; npos: there is none.
size_t first_completed(const std::vector<std::string>& stop, std::string_view text, size_t old_end) {
  size_t first = std::string_view::npos;
  // Each is looked for from where it can end in new text, not from where the longest could.
  for (const std::string& one : stop)
    first = std::min(first, text.find(one, old_end - std::min(old_end, one.size() - 1)));
  return first;
}

}  // namespace

AnswerText::AnswerText(const Tokenizer& tokenizer, std::vector<std::string> stop)
    : tokenizer_(&tokenizer), detokenizer_(std::in_place, tokenizer, true), stop_(std::move(stop)) {
  std::copy_if(stop_.begin(), stop_.end(), std::back_inserter(naming_),
               [&](const std::string& one) { return tokenizer.names_special_token(one); });
  if (!naming_.empty()) spelled_.emplace(Spelled{.detokenizer = Detokenizer(tokenizer, false)});
}

bool AnswerText::append(int32_t id, bool may_end) {
  const size_t old_end = text_.size();
  text_ += detokenizer_->feed(id);
  size_t old_spelled_end = 0;
  if (spelled_) {
    old_spelled_end = spelled_->text.size();
    spelled_->text += spelled_->detokenizer.feed(id);
    if (tokenizer_->is_special(id))
      spelled_->special.emplace_back(spelled_->text.size() - tokenizer_->token_bytes(id).size(),
                                     spelled_->text.size());
  }
  if (!may_end) return false;

  std::optional<std::string> cut;
  if (const size_t at = first_completed(stop_, text_, old_end); at != std::string::npos)
    cut = text_.substr(0, at);
  if (spelled_)
    if (const size_t at = first_completed(naming_, spelled_->text, old_spelled_end); at != std::string::npos)
      if (std::string other = spelled_->without_special(at); !cut || other.size() < cut->size())
        cut = std::move(other);
  if (!cut) return false;
  text_ = std::move(*cut);
  detokenizer_.reset();
  return true;
}

std::string AnswerText::Spelled::without_special(size_t length) const {
  std::string out;
  size_t begin = 0;
  for (const auto& [special_begin, special_end] : special) {
    if (special_begin >= length) break;
    out.append(text, begin, special_begin - begin);
    begin = std::min(special_end, length);
  }
  return out.append(text, begin, length - begin);
}

std::string AnswerText::finish() {
  if (detokenizer_) text_ += detokenizer_->finish();
  return std::move(text_);
}

}  // namespace moerun
