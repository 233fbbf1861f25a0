#pragma once
#include <string>

namespace moerun {

/// The commands, as `moerun --help` names them under Usage and the manual page in its synopsis.
std::string usage_text();

/// What is under the options in `moerun --help`: where every key is described, and exit codes.
std::string help_footer();

/// `moerun help TOPIC`: "keys" (plain text), "keys-markdown" (the table of docs/job-keys.md), "man" (the
/// manual page, roff). Throws BadInput for another topic.
std::string help_text(const std::string& topic, const std::string& version);

}  // namespace moerun
