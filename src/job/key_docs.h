#pragma once
#include <string>
#include <vector>

namespace moerun {

/// What users are told of a key of a job: in `moerun help keys`, in the manual page and in docs/job-keys.md,
/// all from here. Markdown, of which `code` alone is used.
struct KeyDoc {
  std::string key, type, default_value, meaning;
};

/// Every key, in the order in which a job is written. Throws Error when one is not described.
std::vector<KeyDoc> key_docs();

/// All keys as plain text, as a table of Markdown, and as entries of a manual page (roff, man(7)).
std::string keys_as_text();
std::string keys_as_markdown();
std::string keys_as_roff();

}  // namespace moerun
