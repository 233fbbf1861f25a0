#pragma once
#include <ctime>
#include <optional>
#include <string>

#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace moerun {

/// What a model's folder says of texts. Thread contract: as its parts have it.
struct ModelTexts {
  std::optional<Tokenizer> tokenizer;  ///< none: the folder has no tokenizer.json
  ChatTemplate chat_template;

  /// `now`: ChatTemplate::load's. Throws BadInput where there is a tokenizer.json that cannot be used.
  static ModelTexts load(const std::string& model_dir, std::time_t now);
  /// The same, of a folder that gave `checksum` when the job was checked: another host's folder, and one that
  /// was changed since, would make other tokens of the same text. Throws Error where it now gives another.
  static ModelTexts load_again(const std::string& model_dir, std::time_t now, const std::string& checksum);

  /// Of all that decides what texts and conversations become, but for the time.
  std::string checksum() const;
};

}  // namespace moerun
