#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/component.h"

namespace moerun {

/// The `decoder` of a tokenizer.json: how tokens become text. Either ByteLevel, or of Replace, Metaspace,
/// ByteFallback, Fuse and Strip what comes in this order.
struct DecodePlan {
  /// `from` in a token becomes `to`; Metaspace's becomes nothing in the first token.
  struct Substitution {
    std::string from, to;
    bool nothing_in_first = false;
  };

  bool byte_level = false;
  std::vector<Substitution> substitutions;  // one after the other
  bool byte_fallback = false;               ///< a run of "<0xE2>" is one text when it is
                                            ///< UTF-8, else U+FFFD a token
  bool fuse = false;
  std::string strip;      ///< a character
  int64_t strip_max = 0;  ///< so many of it at the text's beginning are left out

  /// Whether a token's text depends on whether it is the first.
  bool first_differs() const;
  /// What a token adds, by its string; bytes that need be no UTF-8 when `byte_level`.
  std::string text_of(std::string_view token, bool first) const;
  /// The byte that a text_of() stands for: "<0xE2>".
  std::optional<uint8_t> fallback_byte(std::string_view text) const;
};

/// Throws BadInput that names what is not known.
DecodePlan read_decoder(const Component& component);

}  // namespace moerun
