#include "tests/fuzz/harness.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace moerun::fuzz {

/// What stands beside tokenizer.json: tokenizer_config.json and then, each after a NUL,
/// special_tokens_map.json, chat_template.jinja and a named template.
void read_model_folder(std::string_view bytes) {
  static const std::string folder = [] {
    const std::string made = scratch() + "/folder";
    std::filesystem::create_directories(made + "/additional_chat_templates");
    std::filesystem::copy_file("tests/fuzz/corpus/tokenizer_file/pairs", made + "/tokenizer.json");
    return made;
  }();
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
                           "additional_chat_templates/tool_use.jinja"}) {
    const bool there = !bytes.empty();
    const std::string_view text = take_until(bytes, '\0');
    if (there)
      write_scratch("folder/" + std::string(name), text);
    else
      std::filesystem::remove(folder + "/" + name);
  }
  refuses([] {
    Tokenizer tokenizer = Tokenizer::load(folder);
    for (const int32_t id : tokenizer.encode("a <s>b</s> <pad>"))
      check(id >= 0 && id < tokenizer.vocab_size(), "ids are in the vocabulary");
  });
  const ChatTemplate chat_template = ChatTemplate::load(folder, 0);
  chat_template.render(R"({"messages": [{"role": "user", "content": "Hi"}], "tools": [{"name": "f"}]})");
}

}  // namespace moerun::fuzz
