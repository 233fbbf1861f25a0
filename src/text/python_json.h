#pragma once
#include <nlohmann/json.hpp>
#include <string>

namespace moerun {

/// `json.dumps(value, ensure_ascii=False)` of Python: what `tojson` is in Hugging Face's chat templates. Keys
/// keep their order. Throws BadInput on a number that Python reads as an integer beyond 64 bits, whose digits
/// are lost here.
std::string python_json(const nlohmann::ordered_json& value);

}  // namespace moerun
