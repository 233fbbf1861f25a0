#pragma once
#include <string>
#include <string_view>

namespace moerun {

/// The alphabet of byte-level BPE (GPT-2's `bytes_to_unicode`): each of the 256 bytes is spelled by one
/// printable character, itself where it is printable Latin-1, else U+0100 and up. "Ġ" spells the space.

/// The vocabulary's spelling of raw bytes.
std::string byte_level_spelling(std::string_view bytes);

/// The bytes that a token stands for. A token with a character outside the alphabet (an added token) stands
/// for its own UTF-8, as in Hugging Face's `ByteLevel` decoder.
std::string byte_level_bytes(std::string_view token);

}  // namespace moerun
