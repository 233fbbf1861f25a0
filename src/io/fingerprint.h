#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "moerun/io.h"

namespace moerun {

/// As JSON: an array of [name, value], in the fingerprint's order.
nlohmann::ordered_json to_json(const Fingerprint& fingerprint);
/// Throws nlohmann's exceptions when it is not such an array.
Fingerprint fingerprint_from_json(const nlohmann::ordered_json& json);

/// The value of an entry; null where there is none of that name.
const std::string* find(const Fingerprint& fingerprint, const std::string& name);

/// What differs, a sentence an entry ("sampling.seed was 0 and is now 1"); empty when both say the same,
/// in whatever order.
std::vector<std::string> differences(const Fingerprint& before, const Fingerprint& now);

}  // namespace moerun
