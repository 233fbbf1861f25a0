#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "moerun/sampling.h"
#include "text/tokenizer.h"
#include "text/tool_calls.h"

namespace moerun {

/// Whether structured output is built in (XGRAMMAR=1).
bool has_grammars();

/// What is wrong with the form that a row asks for, as a sentence, as far as it shows without a vocabulary;
/// empty: nothing. A schema with something in it that answers could not be held to is a fault, not a warning.
/// Any thread.
std::string grammar_fault(const AnswerForm& form);
/// The same of held calls (tool_grammar.h) in the format of the model's.
std::string calls_fault(const std::string& held_calls, ToolFormat format);

/// The tokens that a form allows in each of its states. Immutable, any thread.
class CompiledGrammar;

/// Makes grammars for one vocabulary. Grammars that were asked for lately are kept, as far as memory allows.
/// Any thread.
class GrammarCompiler {
 public:
  /// What answers are made of. Special tokens, `forbidden` ones and ids that are no tokens are in no grammar.
  struct Vocabulary {
    const Tokenizer* tokenizer = nullptr;  ///< must outlive the compiler
    int64_t size = 0;                      ///< of the model's, which may be larger
    std::vector<int32_t> ends;             ///< end-of-sequence ids
    std::vector<int32_t> forbidden;
    ToolFormat tool_format = ToolFormat::none;  ///< of the model's calls of functions
  };
  GrammarCompiler(const Vocabulary& vocabulary, int num_threads);
  ~GrammarCompiler();

  /// Takes from under a millisecond to seconds. Throws BadInput (grammar_fault).
  std::shared_ptr<const CompiledGrammar> compile(const AnswerForm& form);
  /// The same of held calls (calls_fault).
  std::shared_ptr<const CompiledGrammar> compile_calls(const std::string& held_calls);

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

/// How far one answer has come in its grammar. One thread at a time.
class GrammarMatcher {
 public:
  /// `ends`: the ids that end an answer; they can be chosen where the grammar may end, and only there.
  GrammarMatcher(const std::shared_ptr<const CompiledGrammar>& grammar, const std::vector<int32_t>& ends);
  ~GrammarMatcher();
  GrammarMatcher(GrammarMatcher&&) noexcept;
  GrammarMatcher& operator=(GrammarMatcher&&) noexcept;

  /// The answer's next token. False: the grammar has no such token here, and nothing was changed.
  bool accept(int32_t token);
  /// Sets the bits of the tokens that can follow (StepPlan::masks), for the whole vocabulary.
  void fill(std::span<uint32_t> mask);

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace moerun
