#pragma once
#include <optional>
#include <string>
#include <vector>

#include "job/fields.h"
#include "moerun/sampling.h"

namespace moerun {

/// `structured_outputs` as vLLM names its members: {json | regex | choice | grammar | json_object: …}.
Field<SamplingParams> structured_outputs_field();

/// vLLM's older names, of a row or an OpenAI body alone: guided_json, guided_regex, …
const std::vector<std::string>& guided_names();
/// Reads the value of one of them; returns what is wrong with it.
std::string read_guided(const std::string& name, const Json& value, SamplingParams& target);

/// An OpenAI body's `response_format`; returns what is wrong with it, beginning with a member's name or a
/// verb.
std::string read_response_format(const Json& value, SamplingParams& target);

}  // namespace moerun
