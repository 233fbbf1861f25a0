#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

struct pcre2_real_code_8;
struct pcre2_real_match_context_8;
struct pcre2_real_match_data_8;

namespace moerun {

/// A regular expression of a tokenizer.json. PCRE2 matches it, and never sees Unicode: what a pattern tells
/// apart are a few kinds of characters, so text becomes a string of bytes, ASCII as it is and one byte a kind
/// above, and the pattern's classes become sets of those. Hence no table of the machine's PCRE2 has a say,
/// and a class costs a look-up whatever its size. Not for use by two threads at once.
class SplitRegex {
 public:
  /// `oniguruma` as written in tokenizer.json. Throws Error naming what is not known to mean the same.
  explicit SplitRegex(const std::string& oniguruma);

  /// Replaces `matches` by the matches in `text`, valid UTF-8: bytes [begin, end), none empty, from left to
  /// right.
  void find_all(std::string_view text, std::vector<std::pair<size_t, size_t>>& matches);

 private:
  struct CodeDeleter {
    void operator()(pcre2_real_code_8* code) const;
  };
  struct MatchDeleter {
    void operator()(pcre2_real_match_data_8* match) const;
  };
  struct ContextDeleter {
    void operator()(pcre2_real_match_context_8* context) const;
  };
  void compile(const std::string& oniguruma, const std::string& translated);

  std::vector<uint8_t> kinds_;  // [code point] from 0x80 on, less 0x80: the byte it is written as
  std::string written_;         // the text in kinds, where it is not ASCII
  std::unique_ptr<pcre2_real_code_8, CodeDeleter> code_;
  std::unique_ptr<pcre2_real_match_data_8, MatchDeleter> match_;
  std::unique_ptr<pcre2_real_match_context_8, ContextDeleter> context_;
};

}  // namespace moerun
