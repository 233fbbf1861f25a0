#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/detokenizer.h"

namespace moerun {

/// An answer's text as its tokens come, and the stop strings that end it. A stop string ends the answer at
/// the token whose text completes it: one that was complete before is not looked at again. It is looked for
/// in the answer's text, from which special tokens are left out; one that names a special token (has the
/// whole of "<|im_end|>" in it) also in the text with special tokens written out. The answer's text is cut
/// before the occurrence that begins first of those that the token completed. Thread contract: one thread at
/// a time.
class AnswerText {
 public:
  struct Options {
    std::vector<std::string> stop;  ///< none of them empty
    bool include_stop = false;      ///< the text ends behind the stop string
    bool skip_special = true;       ///< special tokens are left out of it
  };
  /// `tokenizer` must outlive it.
  AnswerText(const Tokenizer& tokenizer, Options options);

  /// Takes the next token. True when its text completes a stop string and `may_end`: the text is then cut,
  /// and nothing but finish() may follow.
  bool append(int32_t id, bool may_end);

  /// The whole text; the object is used up.
  std::string finish();

 private:
  /// Text as it would be if the answer ended, but for a character that is not whole.
  struct Running {
    Detokenizer detokenizer;
    std::string text;
    size_t settled = 0;  // bytes of `text` that cannot change

    /// Takes a token and returns from where on `text` is new.
    size_t append(int32_t id);
  };
  /// The same with special tokens written out; only where a stop string names one.
  struct Spelled : Running {
    std::vector<std::pair<size_t, size_t>> special;  // where they begin and end in `text`, ascending

    std::string without_special(size_t length) const;
  };

  const Tokenizer* tokenizer_;
  Running running_;
  bool cut_ = false;  // what the detokenizer holds back lies behind the stop string
  std::vector<std::string> stop_,
      naming_;  // all, and those that name a special token that the text leaves out
  bool include_stop_;
  std::optional<Spelled> spelled_;
};

}  // namespace moerun
