#include "grammar/grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>

#include "grammar/json_schema.h"
#include "grammar/tool_grammar.h"
#include "moerun/error.h"
#include "text/unicode.h"

#if MOERUN_XGRAMMAR
#include <xgrammar/xgrammar.h>

#include <nlohmann/json.hpp>

namespace {

/// What xgrammar would have logged on this thread since it was cleared.
std::string& logged() {
  thread_local std::string text;
  return text;
}

}  // namespace

namespace xgrammar {

// Its own hooks (XGRAMMAR_LOG_CUSTOMIZE), which its headers do not declare for users.
[[noreturn]] void LogFatalImpl(const std::string& file, int lineno, const std::string& message);
void LogMessageImpl(const std::string& file, int lineno, int level, const std::string& message);

void LogFatalImpl(const std::string& /*file*/, int /*lineno*/, const std::string& message) {
  throw std::runtime_error(message);
}

void LogMessageImpl(const std::string& /*file*/, int /*lineno*/, int /*level*/, const std::string& message) {
  if (logged().empty()) logged() = message;
}

}  // namespace xgrammar
#endif

namespace moerun {

#if MOERUN_XGRAMMAR

namespace {

using Kind = AnswerForm::Kind;

const char* name_of(Kind kind) {
  switch (kind) {
    case Kind::json_object:
      return "JSON object";
    case Kind::json_schema:
      return "JSON schema";
    case Kind::regex:
      return "regex";
    case Kind::choice:
      return "choice";
    case Kind::any:
    case Kind::grammar:
      break;
  }
  return "grammar";
}

/// A text as EBNF writes it. Escapes of four digits: xgrammar reads as many as follow of others.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      out += fmt::format("\\{}", c);
    else if (byte < 0x20 || byte == 0x7f)
      out += fmt::format("\\u{:04x}", byte);
    else
      out += c;
  }
  return out + "\"";
}

std::string ebnf_of_choice(const std::string& list) {
  std::string ebnf = "root ::= ";
  bool first = true;
  for (const nlohmann::json& one : nlohmann::json::parse(list)) {
    if (!std::exchange(first, false)) ebnf += " | ";
    ebnf += quoted(one.get<std::string>());
  }
  return ebnf;
}

/// xgrammar's words as part of a sentence: the first line, without a full stop.
std::string sentence(std::string words) {
  words = words.substr(0, words.find('\n'));
  while (words.ends_with('.') || words.ends_with(' ')) words.pop_back();
  return words;
}

constexpr char kAnyObject[] = R"({"type": "object"})";  // and with any members: not strict

xgrammar::Grammar grammar_of_tag(const std::string& tag) {
  auto made = xgrammar::Grammar::FromStructuralTag(tag);
  if (auto* const grammar = std::get_if<xgrammar::Grammar>(&made)) return std::move(*grammar);
  throw std::runtime_error(
      std::visit([](const auto& fault) { return std::string(fault.what()); }, std::get<1>(made)));
}

xgrammar::Grammar grammar_of(const AnswerForm& form) {
  using xgrammar::Grammar;
  switch (form.kind) {
    case Kind::json_object:
      return Grammar::FromJSONSchema(kAnyObject, true, std::nullopt, std::nullopt, false);
    case Kind::json_schema:
      return Grammar::FromJSONSchema(enforceable_schema(form.text));
    case Kind::regex:
      return Grammar::FromRegex(form.text);
    case Kind::choice:
      return Grammar::FromEBNF(ebnf_of_choice(form.text));
    case Kind::any:
    case Kind::grammar:
      break;
  }
  return Grammar::FromEBNF(form.text);
}

/// The same compiled. Not by way of a Grammar: the compiler would write it as EBNF and read it again, and
/// what follows an escape for it as a part of that.
xgrammar::CompiledGrammar compiled(const AnswerForm& form, xgrammar::GrammarCompiler& compiler) {
  switch (form.kind) {
    case Kind::json_object:
      return compiler.CompileJSONSchema(kAnyObject, true, std::nullopt, std::nullopt, false);
    case Kind::json_schema:
      return compiler.CompileJSONSchema(enforceable_schema(form.text));
    case Kind::regex:
      return compiler.CompileRegex(form.text);
    case Kind::choice:
      return compiler.CompileGrammar(ebnf_of_choice(form.text));
    case Kind::any:
    case Kind::grammar:
      break;
  }
  return compiler.CompileGrammar(form.text);
}

/// What `make` makes of a form. What xgrammar warns of it would not hold answers to.
template <class Make>
auto checked(const char* what, Make make) {
  logged().clear();
  try {
    auto made = make();
    if (!logged().empty()) throw std::runtime_error(logged());
    return made;
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw BadInput(fmt::format("the {} cannot be used: {}", what, sentence(error.what())));
  }
}

/// The bytes of each token; none of those that are in no grammar. JSON has no control characters within
/// strings, which xgrammar keeps out of some alone, and can do without all but ends of lines.
std::vector<std::string> pieces_of(const GrammarCompiler::Vocabulary& vocabulary, bool json) {
  const Tokenizer& tokenizer = *vocabulary.tokenizer;
  std::vector<std::string> pieces(static_cast<size_t>(vocabulary.size));
  const auto is_control = [](char c) {
    return static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\r';
  };
  for (int32_t id = 0; id < vocabulary.size; ++id) {
    const std::string_view bytes = tokenizer.token_bytes(id);
    if (!tokenizer.is_special(id) && !(json && std::any_of(bytes.begin(), bytes.end(), is_control)))
      pieces[static_cast<size_t>(id)] = bytes;
  }
  for (const int32_t id : vocabulary.forbidden) pieces[static_cast<size_t>(id)].clear();
  return pieces;
}

/// The tokens that begin or end within a code point.
std::vector<int32_t> fragments_of(const std::vector<std::string>& pieces) {
  std::vector<int32_t> ids;
  for (size_t id = 0; id < pieces.size(); ++id)
    if (find_invalid_utf8(pieces[id])) ids.push_back(static_cast<int32_t>(id));
  return ids;
}

constexpr char kCalls[] = "calls of functions";

/// The sentence of what `make` throws.
template <class Make>
std::string fault_of(Make make) {
  try {
    make();
  } catch (const BadInput& fault) {
    return fault.what();
  }
  return "";
}

bool is_json(Kind kind) { return kind == Kind::json_object || kind == Kind::json_schema; }

}  // namespace

bool has_grammars() { return true; }

std::string grammar_fault(const AnswerForm& form) {
  if (form.kind == Kind::any) return "";
  return fault_of([&] { checked(name_of(form.kind), [&] { return grammar_of(form); }); });
}

std::string calls_fault(const std::string& held_calls, ToolFormat format) {
  return fault_of(
      [&] { checked(kCalls, [&] { return grammar_of_tag(structural_tag_of(held_calls, format)); }); });
}

class CompiledGrammar {
 public:
  xgrammar::CompiledGrammar grammar;
  std::shared_ptr<const std::vector<int32_t>> fragments;
};

struct GrammarCompiler::Parts {
  Vocabulary vocabulary;
  int num_threads = 1;
  std::mutex mutex;
  std::optional<xgrammar::GrammarCompiler> of_json, of_text;  // made when they are first needed
  std::shared_ptr<const std::vector<int32_t>> fragments;      // and these with the first of them
  // What rows that are at work have, and the last: to look one up in xgrammar's cache it must be made first.
  std::map<std::string, std::weak_ptr<const CompiledGrammar>> in_use;
  std::shared_ptr<const CompiledGrammar> last;

  /// One that is in use, or what `make` makes.
  template <class Make>
  std::shared_ptr<const CompiledGrammar> known_or(std::string key, Make make) {
    constexpr size_t kMostInUse = 4096;
    if (const auto known = in_use.find(key); known != in_use.end())
      if (auto grammar = known->second.lock()) return last = std::move(grammar);
    xgrammar::CompiledGrammar made = make();
    if (in_use.size() >= kMostInUse)
      std::erase_if(in_use, [](const auto& one) { return one.second.expired(); });
    last = std::make_shared<const CompiledGrammar>(CompiledGrammar{std::move(made), fragments});
    in_use.insert_or_assign(std::move(key), last);
    return last;
  }

  xgrammar::GrammarCompiler& compiler(bool json) {
    constexpr int64_t kMostBytes = int64_t{512} << 20;  // of grammars that are kept
    std::optional<xgrammar::GrammarCompiler>& made = json ? of_json : of_text;
    if (!made) {
      const std::vector<std::string> pieces = pieces_of(vocabulary, json);
      if (!fragments) fragments = std::make_shared<const std::vector<int32_t>>(fragments_of(pieces));
      made.emplace(xgrammar::TokenizerInfo(pieces, xgrammar::VocabType::RAW,
                                           static_cast<int>(vocabulary.size), vocabulary.ends),
                   num_threads, true, kMostBytes);
    }
    return *made;
  }
};

GrammarCompiler::GrammarCompiler(const Vocabulary& vocabulary, int num_threads)
    : parts_(std::make_unique<Parts>()) {
  parts_->vocabulary = vocabulary;
  parts_->num_threads = num_threads;
}

std::shared_ptr<const CompiledGrammar> GrammarCompiler::compile(const AnswerForm& form) {
  const std::lock_guard lock(parts_->mutex);
  return parts_->known_or(static_cast<char>(form.kind) + form.text, [&] {
    return checked(name_of(form.kind), [&] { return compiled(form, parts_->compiler(is_json(form.kind))); });
  });
}

std::shared_ptr<const CompiledGrammar> GrammarCompiler::compile_calls(const std::string& held_calls) {
  const std::lock_guard lock(parts_->mutex);
  return parts_->known_or(held_calls, [&] {  // no other key begins as JSON does
    return checked(kCalls, [&] {
      return parts_->compiler(false).CompileStructuralTag(
          structural_tag_of(held_calls, parts_->vocabulary.tool_format));
    });
  });
}

struct GrammarMatcher::Parts {
  std::shared_ptr<const CompiledGrammar> grammar;
  xgrammar::GrammarMatcher matcher;

  /// Where something may be repeated more than 128 times, masks of xgrammar 0.2.9 have a token that breaks
  /// off within a code point and that the matcher then refuses (`[ a]{129,}`). Where many such tokens are
  /// allowed any code point is, and they are right.
  void take_out_refused(std::span<uint32_t> mask) {
    constexpr size_t kFew = 16;
    std::vector<int32_t> allowed;
    for (const int32_t id : *grammar->fragments)
      if ((mask[static_cast<size_t>(id / 32)] >> id % 32 & 1U) != 0) allowed.push_back(id);
    if (allowed.size() > kFew) return;
    for (const int32_t id : allowed) {
      if (matcher.AcceptToken(id))
        matcher.Rollback(1);
      else
        mask[static_cast<size_t>(id / 32)] &= ~(1U << id % 32);
    }
  }
};

GrammarMatcher::GrammarMatcher(const std::shared_ptr<const CompiledGrammar>& grammar,
                               const std::vector<int32_t>& ends)
    : parts_(std::make_unique<Parts>(Parts{grammar, xgrammar::GrammarMatcher(grammar->grammar, ends)})) {}

bool GrammarMatcher::accept(int32_t token) { return parts_->matcher.AcceptToken(token); }

void GrammarMatcher::fill(std::span<uint32_t> mask) {
  int64_t words = static_cast<int64_t>(mask.size());
  DLTensor tensor{.data = mask.data(),
                  .device = {kDLCPU, 0},
                  .ndim = 1,
                  .dtype = xgrammar::GetBitmaskDLType(),
                  .shape = &words,
                  .strides = nullptr,
                  .byte_offset = 0};
  // What is all true is written out too.
  parts_->matcher.FillNextTokenBitmask(&tensor);
  parts_->take_out_refused(mask);
}

#else

namespace {

constexpr char kWithout[] =
    "structured output needs xgrammar, and this moerun was built without it (XGRAMMAR=0)";

}  // namespace

bool has_grammars() { return false; }

std::string grammar_fault(const AnswerForm& form) {
  return form.kind == AnswerForm::Kind::any ? "" : kWithout;
}
std::string calls_fault(const std::string& /*held_calls*/, ToolFormat /*format*/) { return kWithout; }

class CompiledGrammar {};
struct GrammarCompiler::Parts {};
struct GrammarMatcher::Parts {};

GrammarCompiler::GrammarCompiler(const Vocabulary& /*vocabulary*/, int /*num_threads*/) {}
std::shared_ptr<const CompiledGrammar> GrammarCompiler::compile(const AnswerForm& /*form*/) {
  throw BadInput(kWithout);
}
std::shared_ptr<const CompiledGrammar> GrammarCompiler::compile_calls(const std::string& /*held_calls*/) {
  throw BadInput(kWithout);
}
GrammarMatcher::GrammarMatcher(const std::shared_ptr<const CompiledGrammar>& /*grammar*/,
                               const std::vector<int32_t>& /*ends*/) {
  throw BadInput(kWithout);
}
bool GrammarMatcher::accept(int32_t /*token*/) { return false; }
void GrammarMatcher::fill(std::span<uint32_t> /*mask*/) {}

#endif

GrammarCompiler::~GrammarCompiler() = default;
GrammarMatcher::~GrammarMatcher() = default;
GrammarMatcher::GrammarMatcher(GrammarMatcher&&) noexcept = default;
GrammarMatcher& GrammarMatcher::operator=(GrammarMatcher&&) noexcept = default;

}  // namespace moerun
