#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "text/component.h"

namespace moerun {

/// The tokens that a tokenizer puts around a text (its beginning of sequence, say).
struct AroundText {
  std::vector<int32_t> before, after;
};

/// The `post_processor` of a tokenizer.json: ByteLevel (which moves offsets alone), TemplateProcessing or a
/// Sequence of them; none adds nothing. Throws BadInput that names what is not known.
AroundText read_post_processor(const Component& component);

}  // namespace moerun
