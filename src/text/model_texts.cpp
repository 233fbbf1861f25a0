#include "text/model_texts.h"

#include <fmt/format.h>

#include <filesystem>
#include <utility>

#include "moerun/error.h"

namespace moerun {

ModelTexts ModelTexts::load(const std::string& model_dir, std::time_t now) {
  ModelTexts out{.chat_template = ChatTemplate::load(model_dir, now)};
  if (std::filesystem::exists(model_dir + "/tokenizer.json")) out.tokenizer = Tokenizer::load(model_dir);
  return out;
}

ModelTexts ModelTexts::load_again(const std::string& model_dir, std::time_t now,
                                  const std::string& checksum) {
  ModelTexts out = load(model_dir, now);
  if (out.checksum() != checksum)
    throw Error(fmt::format(
        "{}: this rank reads another tokenizer or chat template than rank 0 checked: copy one folder to all "
        "hosts, and let nothing write to it",
        model_dir));
  return out;
}

std::string ModelTexts::checksum() const {
  return fmt::format("{} {}", tokenizer ? tokenizer->checksum() : "none", chat_template.checksum());
}

}  // namespace moerun
