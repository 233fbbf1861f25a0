#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

struct pcre2_real_code_8;
struct pcre2_real_match_context_8;
struct pcre2_real_match_data_8;

namespace moerun {

/// A regular expression that names are compared with, as Python's `re.match` does: a name begins with it.
/// PCRE2's dialect. Not for use by two threads at once.
class NamePattern {
 public:
  static constexpr uint32_t kSteps = 100'000;  ///< of one match, at most

  /// Throws BadInput with what is wrong in `pattern`, and where.
  explicit NamePattern(const std::string& pattern);

  /// Throws BadInput where the pattern takes too many steps.
  bool operator()(std::string_view name) const;

 private:
  struct CodeDeleter {
    void operator()(pcre2_real_code_8* code) const;
  };
  struct ContextDeleter {
    void operator()(pcre2_real_match_context_8* context) const;
  };
  struct MatchDeleter {
    void operator()(pcre2_real_match_data_8* match) const;
  };
  std::unique_ptr<pcre2_real_code_8, CodeDeleter> code_;
  std::unique_ptr<pcre2_real_match_data_8, MatchDeleter> match_;
  std::unique_ptr<pcre2_real_match_context_8, ContextDeleter> context_;
};

}  // namespace moerun
