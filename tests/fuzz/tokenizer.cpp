#include "text/tokenizer.h"

#include "tests/fuzz/harness.h"
#include "text/detokenizer.h"

namespace moerun::fuzz {

/// tokenizer.json, and a text through it.
void read_tokenizer_file(std::string_view bytes) {
  Tokenizer tokenizer = Tokenizer::from_json(bytes, "tokenizer.json");
  std::vector<int32_t> ids;
  if (refuses([&] {
        ids = tokenizer.encode("Don't  panic: \xc3\xbc\xe2\x82\xac 42\r\n <|endoftext|> a\xcc\x88");
      }))
    return;
  for (const int32_t id : ids) check(id >= 0 && id < tokenizer.vocab_size(), "ids are in the vocabulary");
  tokenizer.decode(ids, true);
}

/// A text through the tiny model's tokenizer and back, at once and token by token.
void encode_text(std::string_view bytes) {
  static Tokenizer tokenizer = Tokenizer::load("data/tiny-moe");
  const std::vector<int32_t> ids = tokenizer.encode(bytes);
  const std::string text = tokenizer.decode(ids, false);
  Detokenizer detokenizer(tokenizer, false);
  std::string pieces;
  for (const int32_t id : ids) pieces += detokenizer.feed(id);
  pieces += detokenizer.finish();
  check(pieces == text, "token by token gives the same text as all at once");
  // NFC is the one thing that encoding changes, and it changes nothing a second time.
  check(tokenizer.decode(tokenizer.encode(text), false) == text, "a decoded text encodes to itself");
}

}  // namespace moerun::fuzz
