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
    : tokenizer_(&tokenizer), running_{.detokenizer = Detokenizer(tokenizer, true)}, stop_(std::move(stop)) {
  std::copy_if(stop_.begin(), stop_.end(), std::back_inserter(naming_),
               [&](const std::string& one) { return tokenizer.names_special_token(one); });
  if (!naming_.empty()) spelled_.emplace(Spelled{{.detokenizer = Detokenizer(tokenizer, false)}, {}});
}

size_t AnswerText::Running::append(int32_t id) {
  const std::string before = text.substr(settled);
  const size_t was_settled = settled, old_end = text.size();
  text.resize(settled);
  text += detokenizer.feed(id);
  settled = text.size();
  text += detokenizer.provisional();
  // A byte that spoils the run before it makes other text of it, all of which is new.
  return text.compare(was_settled, before.size(), before) == 0 ? old_end : was_settled;
}

bool AnswerText::append(int32_t id, bool may_end) {
  const size_t old_end = running_.append(id);
  size_t old_spelled_end = 0;
  if (spelled_) {
    old_spelled_end = spelled_->append(id);
    if (tokenizer_->is_special(id))
      spelled_->special.emplace_back(spelled_->text.size() - tokenizer_->token_text(id, false).size(),
                                     spelled_->text.size());
  }
  if (!may_end) return false;

  std::optional<std::string> cut;
  if (const size_t at = first_completed(stop_, running_.text, old_end); at != std::string::npos)
    cut = running_.text.substr(0, at);
  if (spelled_)
    if (const size_t at = first_completed(naming_, spelled_->text, old_spelled_end); at != std::string::npos)
      if (std::string other = spelled_->without_special(at); !cut || other.size() < cut->size())
        cut = std::move(other);
  if (!cut) return false;
  running_.text = std::move(*cut);
  cut_ = true;
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
  if (!cut_) {
    running_.text.resize(running_.settled);
    running_.text += running_.detokenizer.finish();
  }
  return std::move(running_.text);
}

}  // namespace moerun
