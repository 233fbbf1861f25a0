#pragma once
#include <string>
#include <string_view>

namespace moerun {

/// Normalization Form C (Unicode Standard Annex 15) of valid UTF-8, as Hugging Face `tokenizers` has it: by
/// the character data of Unicode 9, whatever utf8proc's. Takes O(n log n) however the marks are arranged.
std::string nfc(std::string_view text);

}  // namespace moerun
