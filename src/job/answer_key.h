#pragma once
#include <optional>
#include <string>

#include "moerun/sampling.h"

namespace moerun {

/// What of a row's sampling decides its answers, as bytes: rows with the same prompt and the same bytes have
/// the same answers, to the bit. None where draws are keyed by the row's number.
std::optional<std::string> answer_key(const SamplingParams& sampling);

}  // namespace moerun
