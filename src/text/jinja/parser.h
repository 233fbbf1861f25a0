#pragma once
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"

namespace moerun::jinja {

/// Parses a template as jinja2 does with Hugging Face's extensions (loop controls, `generation`). Throws
/// TemplateError with a line: what is no Jinja, a filter or test that there is not, a tree deeper than
/// kMaxTreeDepth.
Root parse(std::string_view source);

/// What both halves of the parser stand on: the tokens and the depth.
class TokenReader {
 public:
  explicit TokenReader(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

 protected:
  const Token& current() const { return tokens_[pos_]; }
  const Token& look() const { return tokens_[std::min(pos_ + 1, tokens_.size() - 1)]; }
  Token next() { return pos_ + 1 < tokens_.size() ? tokens_[pos_++] : tokens_.back(); }
  bool skip_if(std::string_view op);
  bool skip_if_name(std::string_view word);
  void expect(std::string_view op);
  void expect(Token::Type type);
  std::string expect_name();
  [[noreturn]] void fail(const std::string& what) const { fail(what, current().line); }
  [[noreturn]] static void fail(const std::string& what, int line);

  /// Holds a place in the nesting while a construct is parsed.
  class Nested {
   public:
    explicit Nested(TokenReader& reader) : reader_(reader) {
      if (++reader_.depth_ > kMaxTreeDepth) reader_.too_deep();
    }
    ~Nested() { --reader_.depth_; }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;

   private:
    TokenReader& reader_;
  };
  [[noreturn]] void too_deep() const;

 private:
  std::vector<Token> tokens_;
  size_t pos_ = 0;
  int depth_ = 0;
};

/// Expressions, in jinja2's precedence: `if else`, or, and, not, comparisons, + -, ~, * / // %, **, unary,
/// filters.
class ExpressionParser : public TokenReader {
 public:
  using TokenReader::TokenReader;

 protected:
  ExpressionPtr expression(bool conditional = true);
  /// One expression, or a tuple of several where commas follow. `end`: a word that may follow a last comma.
  ExpressionPtr tuple(bool conditional = true, bool parenthesised = false, std::string_view end = "");
  ExpressionPtr filters(ExpressionPtr input, bool at_name = false);
  CallArguments call_arguments();
  bool ends_tuple(std::string_view end) const;

  /// Macros whose bodies are being parsed: they note the special names that they use.
  std::vector<MacroDefinition*> macros_;
  /// Whether what is parsed may not be reached (a branch): an unknown filter there is an error when it is.
  bool soft_ = false;
  /// Filters and tests that are unknown where they are reached: faults once all is parsed.
  struct Unknown {
    std::string what;
    int line;
  };
  std::vector<Unknown> unknown_;

 private:
  template <class Node>
  ExpressionPtr make(Node node, int line);
  ExpressionPtr disjunction();
  ExpressionPtr conjunction();
  ExpressionPtr negation();
  ExpressionPtr comparison();
  ExpressionPtr sum();
  ExpressionPtr concatenation();
  ExpressionPtr product();
  ExpressionPtr power();
  ExpressionPtr unary(bool with_filters = true);
  ExpressionPtr primary();
  ExpressionPtr name_or_constant();
  ExpressionPtr list_display();
  ExpressionPtr dict_display();
  ExpressionPtr postfix(ExpressionPtr object);
  ExpressionPtr filter_or_test(ExpressionPtr input);
  ExpressionPtr subscript(ExpressionPtr object);
  ExpressionPtr slice_or_index();
  ExpressionPtr call(ExpressionPtr callee);
  ExpressionPtr test(ExpressionPtr input);
  std::string dotted_name();
};

}  // namespace moerun::jinja
