// Structured output: what is refused, and what a grammar allows.
#include "grammar/grammar.h"

#include <fmt/format.h>

#include <random>

#include "engine/answer_rules.h"
#include "engine/grammar_queue.h"
#include "grammar/json_schema.h"
#include "moerun/error.h"
#include "tests/catch.h"
#include "tests/unit/text_fixture.h"

using namespace moerun;

namespace {

using Kind = AnswerForm::Kind;

constexpr int32_t kVocab = 4096, kEnd = 4093;

std::string schema_fault(const std::string& schema) {
  try {
    static_cast<void>(enforceable_schema(schema));
  } catch (const BadInput& fault) {
    return fault.what();
  }
  return "";
}

/// The tiny model's tokens, and answers that are fed to a matcher.
class Tokens {
 public:
  Tokenizer tokenizer = Tokenizer::load(kTinyModel);

  GrammarCompiler::Vocabulary vocabulary() { return {&tokenizer, kVocab, {kEnd}, {}}; }
  std::shared_ptr<const CompiledGrammar> compile(const AnswerForm& form) {
    return GrammarCompiler(vocabulary(), 1).compile(form);
  }
};

std::vector<int32_t> allowed(GrammarMatcher& matcher) {
  std::vector<uint32_t> mask(kVocab / 32, 0xdeadbeef);
  matcher.fill(mask);
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < kVocab; ++id)
    if (mask[static_cast<size_t>(id / 32)] >> id % 32 & 1) ids.push_back(id);
  return ids;
}

bool contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

/// Whether the matcher takes the text and could end there.
bool takes(Tokens& tokens, const AnswerForm& form, const std::string& text) {
  GrammarMatcher matcher(tokens.compile(form), {kEnd});
  for (const int32_t id : tokens.tokenizer.encode(text)) {
    const bool may = contains(allowed(matcher), id);
    CHECK(matcher.accept(id) == may);
    if (!may) return false;
  }
  return contains(allowed(matcher), kEnd);
}

}  // namespace

TEST_CASE("schemas that answers could not be held to are refused, with the keyword and its place",
          "[grammar]") {
  CHECK(schema_fault(R"({"type": "object", "properties": {"a": {"not": {"type": "null"}}}})") ==
        "the JSON schema cannot be used: answers cannot be held to not (at #/properties/a)");
  CHECK(schema_fault(R"({"type": "array", "uniqueItems": true})") ==
        "the JSON schema cannot be used: answers cannot be held to uniqueItems (at #)");
  CHECK(schema_fault(R"({"$defs": {"x": {"if": {}}}, "$ref": "#/$defs/x"})")
            .ends_with("answers cannot be held to if (at #/$defs/x)"));
  CHECK(schema_fault(R"({"anyOf": [{"type": "null"}], "properties": {}})")
            .ends_with("answers cannot be held to anyOf and properties at once (at #)"));
  CHECK(schema_fault(R"({"$ref": "#/$defs/a", "enum": [1]})")
            .ends_with("answers cannot be held to $ref and enum at once (at #)"));
  CHECK(schema_fault(R"({"allOf": [{}, {}]})").ends_with("allOf of several schemas (at #)"));
  CHECK(schema_fault(R"({"minimum": 3})").ends_with("minimum needs a type beside it (at #)"));
  CHECK(schema_fault(R"({"$ref": "https://example.org/x"})")
            .ends_with("$ref is \"https://example.org/x\", and must be # or point into its $defs (at #)"));
  CHECK(schema_fault(R"({"$ref": "#/components/x"})").ends_with("point into its $defs (at #)"));
  CHECK(schema_fault(R"({"type": "string", "pattern": "a\\\\b"})")
            .ends_with("control characters JSON writes with escapes (at #)"));
  CHECK(schema_fault(R"({"type": "object", "required": ["a"], "additionalProperties": false})")
            .ends_with("\"a\" is required, and there is no such property (at #)"));
  CHECK(schema_fault(R"({"type": "object", "properties": {"a": 3}})")
            .ends_with("a schema is an object, or true or false (at #/properties/a)"));
  CHECK(schema_fault(R"({"const": 3, "type": "string"})").ends_with("const is not of its type (at #)"));
  for (const char* good :
       {"true", "{}", R"({"type": "string", "format": "date", "description": "x"})",
        R"({"type": "string", "pattern": "^[^\"\\\\]*$"})", R"({"enum": [1, "a"], "type": "string"})"})
    CHECK(schema_fault(good) == "");
}

TEST_CASE("what a schema leaves open stays open, and what it means is written out", "[grammar]") {
  CHECK(enforceable_schema(R"({"type":"object"})") == R"({"type":"object","additionalProperties":true})");
  CHECK(enforceable_schema(R"({"type":"array"})") == R"({"type":"array","items":true})");
  CHECK(enforceable_schema(R"({"enum":[1,"a",null],"type":["string","null"]})") == R"({"enum":["a",null]})");
  CHECK(enforceable_schema(R"({"type":"object","properties":{},"required":["a"]})") ==
        R"({"type":"object","properties":{"a":true},"required":["a"]})");
  CHECK(enforceable_schema(R"({"type":"string","anyOf":[{"pattern":"a"},{"type":"string"}]})") ==
        R"({"anyOf":[{"pattern":"a","type":"string"},{"type":"string"}]})");
}

TEST_CASE("patterns whose characters JSON would write with escapes are told", "[grammar]") {
  for (const char* plain : {"", "^[a-z]+$", "[^\"\\\\]*", ".*", "\\d+\\.\\d", "[\\t ]", "ä|ö", "\\S"}) {
    INFO(plain);
    CHECK(is_plain_pattern(plain));
  }
  for (const char* escaped : {"\"", "a\\\\b", "\\n", "[\\n]", "[\"]", "é.", "[^é]", "é\\S"}) {
    INFO(escaped);
    CHECK(!is_plain_pattern(escaped));
  }
}

TEST_CASE("what a mask allows is taken, also where something is repeated more than 128 times", "[grammar]") {
  const std::optional<std::string> folder = shared_folder("golden/qwen3-tokenizer");
  if (!folder) return;
  constexpr int32_t kSize = 151936, kImEnd = 151645;
  const Tokenizer tokenizer = Tokenizer::load(*folder);
  GrammarCompiler compiler({&tokenizer, kSize, {kImEnd}, {}}, 1);
  for (const char* const regex : {"[ a]{129,5000}", "[a-zA-Z ,.]{3000,}", "[à-ü ]{129,}", "[a ]*"}) {
    GrammarMatcher matcher(compiler.compile({Kind::regex, regex}), {kImEnd});
    std::vector<uint32_t> mask(kSize / 32);
    std::mt19937 random(1);
    for (int step = 0; step < 20; ++step) {
      matcher.fill(mask);
      CHECK((mask[27982 / 32] >> 27982 % 32 & 1U) == 0);  // a space and a byte of three that are a code point
      std::vector<int32_t> ids;
      for (int32_t id = 0; id < kSize; ++id)
        if (id != kImEnd && (mask[static_cast<size_t>(id / 32)] >> id % 32 & 1U) != 0) ids.push_back(id);
      REQUIRE(!ids.empty());
      REQUIRE(matcher.accept(ids[random() % ids.size()]));
    }
  }
}

TEST_CASE("patterns and lists of values that would take minutes are refused", "[grammar]") {
  CHECK(written_out("") == 0);
  CHECK(written_out("^[a-z{9}]{2,5}\\{3$") == 1 + 5 + 2 + 1);
  CHECK(written_out("(a|bc{3}){20}d") == (1 + 1 + 3) * 20 + 1);
  CHECK(written_out("((a{1000}){1000}){1000}") >= 1'000'000'000);
  CHECK(schema_fault(R"({"type": "string", "pattern": "^[a-z]{1,1900}$"})") == "");
  CHECK(
      schema_fault(R"({"type": "string", "pattern": "(a{1,100}){1,100}"})")
          .ends_with("a pattern has more than 2000 characters once its repetitions are written out (at #)"));
  std::string values = "0";
  for (int i = 1; i < 4096; ++i) values += fmt::format(", {}", i);
  CHECK(schema_fault(R"({"enum": [)" + values + "]}") == "");
  CHECK(schema_fault(R"({"enum": [)" + values + ", 4096]}")
            .ends_with("enum has 4097 values, and at most 4096 are taken (at #)"));
}

TEST_CASE("forms that cannot be used are told before there is a vocabulary", "[grammar]") {
  if (!has_grammars()) {
    CHECK(grammar_fault({Kind::json_object, ""}) ==
          "structured output needs xgrammar, and this moerun was built without it (XGRAMMAR=0)");
    return;
  }
  CHECK(grammar_fault({}) == "");
  CHECK(grammar_fault({Kind::json_object, ""}) == "");
  CHECK(grammar_fault({Kind::json_schema, R"({"type": "integer", "minimum": 3, "maximum": 7})"}) == "");
  CHECK(grammar_fault({Kind::json_schema, R"({"type": "integer", "minimum": 3, "maximum": 2})"})
            .starts_with("the JSON schema cannot be used: "));
  CHECK(grammar_fault({Kind::json_schema, R"({"type": "number", "multipleOf": 0.5})"})
            .starts_with("the JSON schema cannot be used: multipleOf"));
  CHECK(grammar_fault({Kind::regex, "a(b"}).starts_with("the regex cannot be used: "));
  CHECK(grammar_fault({Kind::regex, "a(?=b)"}).starts_with("the regex cannot be used: "));
  CHECK(grammar_fault({Kind::regex, "a^b"}).starts_with("the regex cannot be used: "));
  CHECK(grammar_fault({Kind::grammar, "rot ::= \"a\""}).starts_with("the grammar cannot be used: "));
  CHECK(grammar_fault({Kind::choice, R"(["a", "\"b\\\n"])"}) == "");
}

TEST_CASE("a matcher takes what its form allows, and lets an answer end there alone", "[grammar]") {
  if (!has_grammars()) return;
  Tokens tokens;
  const AnswerForm schema{
      Kind::json_schema,
      R"({"type": "object", "properties": {"größe": {"type": "integer"}, "b": {"enum": ["x", null]}},
                              "required": ["größe"]})"};
  CHECK(takes(tokens, schema, R"({"größe": 17})"));
  CHECK(takes(tokens, schema, R"({"größe": -3, "b": null})"));
  CHECK(!takes(tokens, schema, R"({"größe": 17)"));
  CHECK(!takes(tokens, schema, R"({"b": null})"));
  CHECK(!takes(tokens, schema, R"({"größe": 1, "c": 2})"));
  CHECK(takes(tokens, {Kind::regex, "[a-c]{2}\\d?"}, "ab7"));
  CHECK(takes(tokens, {Kind::regex, "[a-c]{2}\\d?"}, "cc"));
  CHECK(!takes(tokens, {Kind::regex, "[a-c]{2}\\d?"}, "abd"));
  CHECK(takes(tokens, {Kind::choice, R"(["yes", "no \"way\"\n"])"}, "no \"way\"\n"));
  CHECK(!takes(tokens, {Kind::choice, R"(["yes", "no"])"}, "y"));
  CHECK(takes(tokens, {Kind::grammar, R"(root ::= "a" root "b" | "ab")"}, "aabb"));
  CHECK(!takes(tokens, {Kind::grammar, R"(root ::= "a" root "b" | "ab")"}, "aab"));
  CHECK(takes(tokens, {Kind::json_object, ""}, R"({"any": [1, "member", {"x": null}]})"));
  CHECK(!takes(tokens, {Kind::json_object, ""}, "[1]"));
}

TEST_CASE("no special token is in a grammar but those that end an answer", "[grammar]") {
  if (!has_grammars()) return;
  Tokens tokens;
  const auto grammar = tokens.compile({Kind::regex, "[^x]*"});
  GrammarMatcher matcher(grammar, {kEnd});
  std::vector<int32_t> ids = allowed(matcher);
  CHECK(contains(ids, kEnd));
  CHECK(!contains(ids, 4094));
  CHECK(!contains(ids, 4095));
  GrammarMatcher with_stop(grammar, {kEnd, 4095});
  ids = allowed(with_stop);
  CHECK(contains(ids, 4095));
  CHECK(!contains(ids, 4094));
}

TEST_CASE("an answer follows its grammar token by token, behind its thoughts, and with what else is asked",
          "[grammar]") {
  if (!has_grammars()) return;
  Tokens tokens;
  SamplingParams sampling{.form = {Kind::choice, R"(["yes", "no"])"}};
  const std::vector<int32_t> ends{kEnd};
  const auto rules_of = [&] {
    auto rules = AnswerRules::make(
        {.sampling = sampling, .tokenizer = &tokens.tokenizer, .vocab_size = kVocab, .eos_token_ids = ends});
    rules->set_grammar(tokens.compile(sampling.form));
    return rules;
  };
  std::vector<uint32_t> mask(kVocab / 32);
  const auto has = [&](int32_t id) { return (mask[static_cast<size_t>(id / 32)] >> id % 32 & 1) != 0; };
  AnswerProgress progress(rules_of());
  std::vector<int32_t> answer = tokens.tokenizer.encode("no");
  REQUIRE(progress.forbids({}));
  for (size_t i = 0; i < answer.size(); ++i) {
    progress.fill(std::span(answer).first(i), mask);
    CHECK(has(answer[i]));
    CHECK(!has(kEnd));
    progress.take(answer[i]);
  }
  progress.fill(answer, mask);
  CHECK(has(kEnd));
  answer.push_back(kEnd);  // ignore_eos: nothing but ends can follow
  progress.take(kEnd);
  progress.fill(answer, mask);
  CHECK(has(kEnd));
  CHECK(std::count(mask.begin(), mask.end(), 0U) == kVocab / 32 - 1);

  AnswerProgress wrong(rules_of());
  const std::vector<int32_t> other = tokens.tokenizer.encode("maybe");
  for (const int32_t id : other) wrong.take(id);
  wrong.fill(other, mask);  // nothing is left: the row gets an error
  CHECK(std::count(mask.begin(), mask.end(), 0U) == kVocab / 32);

  sampling.allowed_token_ids = tokens.tokenizer.encode("yes");
  AnswerProgress narrow(rules_of());
  narrow.fill({}, mask);
  CHECK(has(tokens.tokenizer.encode("yes").front()));
  CHECK(!has(tokens.tokenizer.encode("no").front()));
}

TEST_CASE("sequences wait for their grammars while others run, and a grammar that is none is the row's fault",
          "[grammar]") {
  if (!has_grammars()) return;
  Tokens tokens;
  GrammarQueue queue(tokens.vocabulary());
  CHECK(queue.num_answers() == 0);
  const std::vector<int32_t> ends{kEnd};
  for (uint64_t row = 0; row < 3; ++row) {
    const SamplingParams sampling{
        .n = 2, .form = {Kind::regex, row == 1 ? "(" : fmt::format("[a-z]{{{}}}", row + 1)}};
    queue.add(Sequence({.row = row, .sampling = sampling}, {1, 2}, &tokens.tokenizer,
                       AnswerRules::make({.sampling = sampling,
                                          .tokenizer = &tokens.tokenizer,
                                          .vocab_size = kVocab,
                                          .eos_token_ids = ends})));
  }
  std::vector<uint64_t> rows;
  std::string error;
  while (queue.num_answers() > 0) {
    CHECK(queue.num_answers() == 2 * static_cast<int64_t>(3 - rows.size()));
    for (auto& ready : queue.take_ready())
      if (auto* const sequence = std::get_if<Sequence>(&ready)) {
        rows.push_back(sequence->row());
        CHECK(sequence->mask_words() == kVocab / 32);
      } else {
        rows.push_back(std::get<RowResult>(ready).row);
        error = std::get<RowResult>(ready).error;
      }
  }
  CHECK(rows == std::vector<uint64_t>{0, 1, 2});
  CHECK(error.starts_with("the regex cannot be used: "));
}
