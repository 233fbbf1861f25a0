#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct pcre2_real_code_8;
struct pcre2_real_match_context_8;
struct pcre2_real_match_data_8;

namespace moerun {

/// Cuts text into the pieces that BPE may not merge across: Hugging Face's `Split` with behavior `Isolated`,
/// one pattern after the other, each on the pieces of the one before. Not for use by two threads at once.
class Pretokenizer {
 public:
  /// `patterns` are Oniguruma regular expressions as written in tokenizer.json. Throws Error when one uses a
  /// construct whose meaning is not known to be the same in PCRE2.
  explicit Pretokenizer(const std::vector<std::string>& patterns);

  /// Appends the pieces of valid UTF-8; together they are `text`.
  void split(std::string_view text, std::vector<std::string_view>& pieces);

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
  struct Pattern {
    std::unique_ptr<pcre2_real_code_8, CodeDeleter> code;
    std::unique_ptr<pcre2_real_match_data_8, MatchDeleter> match;
  };
  static Pattern compile(const std::string& regex);
  void split_by(const Pattern& pattern, std::string_view text, std::vector<std::string_view>& pieces) const;

  std::unique_ptr<pcre2_real_match_context_8, ContextDeleter> context_;
  std::vector<Pattern> patterns_;
  std::vector<std::string_view> scratch_;
};

/// The same regular expression for PCRE2 (with PCRE2_UTF, PCRE2_UCP). Throws Error on what it does not know.
std::string oniguruma_to_pcre2(std::string_view regex);

}  // namespace moerun
