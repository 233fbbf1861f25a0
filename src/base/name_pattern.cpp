#define PCRE2_CODE_UNIT_WIDTH 8
#include "base/name_pattern.h"

#include <fmt/format.h>
#include <pcre2.h>

#include <array>
#include <new>

#include "moerun/error.h"

namespace moerun {

namespace {

std::string message_of(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

}  // namespace

void NamePattern::CodeDeleter::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }
void NamePattern::ContextDeleter::operator()(pcre2_real_match_context_8* context) const {
  pcre2_match_context_free(context);
}
void NamePattern::MatchDeleter::operator()(pcre2_real_match_data_8* match) const {
  pcre2_match_data_free(match);
}

NamePattern::NamePattern(const std::string& pattern) {
  int error = 0;
  PCRE2_SIZE at = 0;
  code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_ANCHORED,
                            &error, &at, nullptr));
  if (!code_) throw BadInput(fmt::format("{} at character {}", message_of(error), at));
  match_.reset(pcre2_match_data_create(1, nullptr));
  context_.reset(pcre2_match_context_create(nullptr));
  if (!match_ || !context_) throw std::bad_alloc();
  pcre2_set_match_limit(context_.get(), kSteps);
}

bool NamePattern::operator()(std::string_view name) const {
  const int found = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(name.data()), name.size(), 0, 0,
                                match_.get(), context_.get());
  if (found < 0 && found != PCRE2_ERROR_NOMATCH) throw BadInput(message_of(found));
  return found >= 0;
}

}  // namespace moerun
