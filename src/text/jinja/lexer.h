#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/value.h"

namespace moerun::jinja {

struct Token {
  enum class Type {
    data,            ///< text between tags
    variable_begin,  ///< {{
    variable_end,    ///< }}
    block_begin,     ///< {%
    block_end,       ///< %}
    name,
    string,
    number,  ///< in `number`
    op,      ///< an operator, in `text`
    end,
  };
  Type type;
  std::string text;  ///< of data, names, strings (unescaped) and operators
  int line;          ///< 1-based
  Value number = {};

  bool is(std::string_view op) const { return type == Type::op && text == op; }
  bool is_name(std::string_view word) const { return type == Type::name && text == word; }
  /// As jinja2 names it in its messages.
  std::string description() const;
};

/// The tokens of a template, Type::end last, as jinja2's lexer cuts them with Hugging Face's settings:
/// `trim_blocks` and `lstrip_blocks`, the last line end dropped, line ends of every kind as `\n`. Comments
/// are passed over and raw blocks are data. `source` is UTF-8. Throws TemplateError with a line.
std::vector<Token> tokenize(std::string_view source);

}  // namespace moerun::jinja
