#pragma once

namespace moerun {

// What the files of a job are told by, for those who write them and for the check that no name is used twice.

inline constexpr const char* kTemporarySuffix = ".tmp";     ///< an output's, until it is whole
inline constexpr const char* kRunDirectorySuffix = ".run";  ///< of the folder beside `output.path`

inline constexpr const char* kReportJsonBegin = "{\n  \"program\": \"moerun ";
inline constexpr const char* kReportHtmlBegin = "<!DOCTYPE html>\n<!-- moerun report -->\n";

inline constexpr const char* kMetricsBegin = "# HELP moerun_up ";

}  // namespace moerun
