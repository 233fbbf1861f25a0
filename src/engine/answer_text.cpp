#include "engine/answer_text.h"

#include <algorithm>

namespace moerun {
namespace {

/// A stop string in a text.
struct Found {
  size_t begin = std::string_view::npos, end = 0;
  explicit operator bool() const { return begin != std::string_view::npos; }
};

/// The first occurrence that ends behind `old_end`; of several that begin there the shortest, which was
/// complete first.
Found first_completed(const std::vector<std::string>& stop, std::string_view text, size_t old_end) {
  Found first;
  // Each is looked for from where it can end in new text, not from where the longest could.
  for (const std::string& one : stop) {
    const size_t at = text.find(one, old_end - std::min(old_end, one.size() - 1));
    if (at == std::string_view::npos) continue;
    if (const Found found{at, at + one.size()};
        found.begin < first.begin || (found.begin == first.begin && found.end < first.end))
      first = found;
  }
  return first;
}

}  // namespace

AnswerText::AnswerText(const Tokenizer& tokenizer, Options options)
    : tokenizer_(&tokenizer),
      running_{.detokenizer = Detokenizer(tokenizer, options.skip_special)},
      stop_(std::move(options.stop)),
      include_stop_(options.include_stop) {
  if (options.skip_special)
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
  const auto length = [&](const Found& found) { return include_stop_ ? found.end : found.begin; };
  if (const Found found = first_completed(stop_, running_.text, old_end))
    cut = running_.text.substr(0, length(found));
  if (spelled_)
    if (const Found found = first_completed(naming_, spelled_->text, old_spelled_end))
      if (std::string other = spelled_->without_special(length(found)); !cut || other.size() < cut->size())
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
