// Stop strings against a reference that decodes everything again after each token.
#include "engine/answer_text.h"

#include <random>

#include "tests/unit/text_fixture.h"
#include "text/tokenizer.h"

using namespace moerun;

namespace {

using Ids = std::vector<int32_t>;
using Strings = std::vector<std::string>;

constexpr size_t kNone = std::string::npos;

/// decode(ids) without a character that further tokens may still complete: one that is U+FFFD now, and that
/// some byte behind it does not leave as it is with a U+FFFD of its own.
std::string settled(const Tokenizer& tokenizer, const Ids& bytes, Ids ids) {
  const std::string text = tokenizer.decode(ids, true);
  if (!text.ends_with("\uFFFD")) return text;
  ids.push_back(0);
  for (const int32_t byte : bytes) {
    ids.back() = byte;
    if (tokenizer.decode(ids, true) != text + "\uFFFD") return text.substr(0, text.size() - 3);
  }
  return text;
}

/// The text with special tokens written out, as runs: text between special tokens, and those (marked).
std::vector<std::pair<std::string, bool>> spelled_runs(const Tokenizer& tokenizer, const Ids& bytes,
                                                       const Ids& ids) {
  std::vector<std::pair<std::string, bool>> runs;
  Ids open;
  for (const int32_t id : ids) {
    if (!tokenizer.is_special(id)) {
      open.push_back(id);
      continue;
    }
    runs.emplace_back(tokenizer.decode(open, true), false);
    runs.emplace_back(tokenizer.decode(Ids{id}, false), true);
    open.clear();
  }
  runs.emplace_back(settled(tokenizer, bytes, open), false);
  return runs;
}

size_t first_in(const std::string& text, const Strings& stop, size_t old_end) {
  size_t first = kNone;
  for (const std::string& one : stop)
    for (size_t at = 0; at + one.size() <= text.size(); ++at)
      if (text.compare(at, one.size(), one) == 0 && at + one.size() > old_end) first = std::min(first, at);
  return first;
}

struct Answer {
  size_t num_tokens = 0;
  std::string text;
  bool operator==(const Answer&) const = default;
};

Answer reference(const Tokenizer& tokenizer, const Ids& bytes, const Ids& ids, const Strings& stop,
                 size_t min_tokens) {
  Strings naming;
  for (const std::string& one : stop)
    for (int32_t id = 0; id < tokenizer.vocab_size(); ++id)
      if (tokenizer.is_special(id) && contains(one, tokenizer.decode(Ids{id}, false))) {
        naming.push_back(one);
        break;
      }
  size_t old_end = 0, old_spelled_end = 0;
  for (size_t n = 1; n <= ids.size(); ++n) {
    const Ids so_far(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(n));
    const std::string text = settled(tokenizer, bytes, so_far);
    std::string spelled, visible_of;  // visible_of: a byte a byte of `spelled`, 1 where a special token is
    for (const auto& [run, special] : spelled_runs(tokenizer, bytes, so_far)) {
      spelled += run;
      visible_of.append(run.size(), special ? '\1' : '\0');
    }
    std::optional<std::string> cut;
    if (n >= min_tokens) {
      if (const size_t at = first_in(text, stop, old_end); at != kNone) cut = text.substr(0, at);
      if (const size_t at = first_in(spelled, naming, old_spelled_end); at != kNone) {
        std::string without;
        for (size_t i = 0; i < at; ++i)
          if (visible_of[i] == '\0') without += spelled[i];
        if (!cut || without.size() < cut->size()) cut = without;
      }
    }
    if (cut) return {n, *cut};
    old_end = text.size();
    old_spelled_end = spelled.size();
  }
  return {ids.size(), tokenizer.decode(ids, true)};
}

Answer answer(const Tokenizer& tokenizer, const Ids& ids, const Strings& stop, size_t min_tokens) {
  AnswerText text(tokenizer, {.stop = stop});
  size_t n = 0;
  while (n < ids.size()) {
    ++n;
    if (text.append(ids[n - 1], n >= min_tokens)) break;
  }
  return {n, text.finish()};
}

/// Answers of words, of parts of characters and of special tokens; stop strings from their text, overlapping.
void compare_random(const Tokenizer& tokenizer, const Strings& words, int rounds) {
  Ids bytes, partial, special, whole;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.is_special(id)) special.push_back(id);
    const std::string_view own = tokenizer.token_bytes(id);
    if (own.size() == 1 && (static_cast<uint8_t>(own[0]) & 0xC0) == 0x80) bytes.push_back(id);
    if (contains(tokenizer.decode(Ids{id}, true), "\uFFFD")) partial.push_back(id);
  }
  for (const std::string& word : words) whole.push_back(*tokenizer.token_id(word));
  REQUIRE(bytes.size() == 64);
  std::mt19937 random(20261130);
  const auto draw = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
  int ended = 0;
  for (int round = 0; round < rounds; ++round) {
    Ids ids;
    const size_t length = 1 + draw(10);
    while (ids.size() < length) {
      const size_t kind = draw(8);
      const Ids& from = kind == 0 ? special : kind <= 2 ? partial : whole;
      ids.push_back(from[draw(from.size())]);
    }
    const std::string spelled = tokenizer.decode(ids, false), visible = tokenizer.decode(ids, true);
    Strings stop;
    for (size_t i = draw(4); i-- > 0;) {
      const std::string& source = draw(2) == 0 && !visible.empty() ? visible : spelled;
      const size_t begin = draw(source.size());
      stop.push_back(
          source.substr(begin, 1 + draw(std::min<size_t>(source.size() - begin, draw(3) == 0 ? 40 : 4))));
    }
    if (draw(3) == 0) stop.emplace_back("this text never appears in the answer at all");
    const size_t min_tokens = draw(3) == 0 ? 0 : draw(length + 2);
    const Answer expected = reference(tokenizer, bytes, ids, stop, min_tokens);
    INFO(nlohmann::json(ids).dump() << " min_tokens " << min_tokens << " stop "
                                    << nlohmann::json(stop).dump(-1, ' ', true,
                                                                 nlohmann::json::error_handler_t::replace));
    CHECK(answer(tokenizer, ids, stop, min_tokens) == expected);
    ended += expected.num_tokens < ids.size();
  }
  CHECK(ended > rounds / 8);
}

}  // namespace

TEST_CASE("Stop strings end answers as a reference that decodes step by step", "[text]") {
  compare_random(Tokenizer::load(kTinyModel), {"a", "b", "Ġa", "Ġthe", "the", "e", "Ċ", "ab", "in", "."},
                 4000);
}

TEST_CASE("Stop strings end answers of Qwen3's vocabulary as the reference", "[text]") {
  if (const auto folder = shared_folder("golden/qwen3-tokenizer"))
    compare_random(Tokenizer::load(*folder), {"a", "Ġa", "Ġthe", "</", "Ċ", "ä¸Ńåįİ", "ĠÐ¿", "aa", "ab"}, 60);
}

TEST_CASE("A stop string that was complete before min_tokens ends nothing later", "[text]") {
  Tokenizer tokenizer = Tokenizer::load(kTinyModel);
  const Ids ids = tokenizer.encode("one e two e three");
  for (const Strings& stop : {Strings{"one"}, Strings{"one", "never, never, never, never"}})
    CHECK(answer(tokenizer, ids, stop, 3) == Answer{ids.size(), "one e two e three"});
  // One that begins before and ends after does.
  const Answer spanning = answer(tokenizer, ids, {"one e two e"}, 3);
  CHECK(spanning.text.empty());
  CHECK(spanning.num_tokens < ids.size());
}

TEST_CASE("A stop string that names a special token ends the answer at it", "[text]") {
  Tokenizer tokenizer = Tokenizer::load(kTinyModel);
  const Ids ids = tokenizer.encode("one two<|im_end|> three<|im_start|>");
  CHECK(answer(tokenizer, ids, {"<|im_end|>"}, 0).text == "one two");
  CHECK(answer(tokenizer, ids, {"wo<|im_end|> th"}, 0).text == "one t");
  CHECK(answer(tokenizer, ids, {"three<|im_start|>"}, 0).text == "one two ");
  CHECK(answer(tokenizer, ids, {"two three"}, 0).text == "one ");             // the answer's own text has it
  CHECK(answer(tokenizer, ids, {"im_end", ">"}, 0).text == "one two three");  // parts of one name nothing
}
