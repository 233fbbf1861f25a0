#pragma once
#include <string>
#include <vector>

#include "moerun/job.h"

namespace moerun {

/// A job from YAML and `key=value` overrides (values are YAML; the last of a key wins; `key=null` takes an
/// optional key or a section away).
///
/// Checks spelling, types and ranges: what can be said without looking at another file. Every fault goes into
/// one BadInput, a line each: "FILE:LINE: message" or "command line: KEY=VALUE: message". `Job::yaml` becomes
/// yaml_of the job.
Job parse_job(const std::string& yaml_text, const std::string& file_name,
              const std::vector<std::string>& overrides = {});

/// A job as YAML, every key with its value, a line a key, sections indented: what parse_job reads back to an
/// equal job.
std::string yaml_of(const Job& job);

/// parse_job of a file's text. Throws BadInput when the file cannot be read.
Job read_job(const std::string& path, const std::vector<std::string>& overrides = {});

}  // namespace moerun
