#pragma once
#include <memory>
#include <string>

#include "text/component.h"

namespace moerun {

/// What a tokenizer does to text before it is split. Not for use by two threads at once.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  /// Of valid UTF-8, to valid UTF-8. Nothing stays nothing.
  virtual std::string apply(std::string text) = 0;
};

/// The `normalizer` of a tokenizer.json: NFC, Prepend, Replace or a Sequence of them; none leaves text as it
/// is. Throws BadInput that names what is not known.
std::unique_ptr<Normalizer> read_normalizer(const Component& component);

}  // namespace moerun
