#include "text/jinja/parser.h"

#include <algorithm>

#include "text/jinja/scopes.h"

namespace moerun::jinja {
namespace {

class Parser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Body run() {
    Body body = statements({});
    if (current().type != Token::Type::end) unknown_tag();
    if (!unknown_.empty()) fail(unknown_.front().what, unknown_.front().line);
    return body;
  }

 private:
  using Words = std::vector<std::string_view>;

  /// Statements until a tag named by one of `ends`, which stays current (its block_begin is passed), or the
  /// end.
  Body statements(const Words& ends);
  /// The end of a tag, then its body. Stays at the word that ends it.
  Body block(const Words& ends);
  Body block_to(std::string_view end);
  /// The body of something with a frame of its own.
  Body inner(const Words& ends);

  Statement statement();
  Statement for_statement(int line);
  Statement if_statement(int line);
  Statement set_statement(int line);
  Statement with_statement(int line);
  Statement macro_statement(int line);
  Statement call_statement(int line);
  Statement block_statement(int line);
  Statement loop_control(int line);
  Statement unavailable(int line);
  [[noreturn]] void unknown_tag() const;

  Target target(std::string_view end, bool with_namespace);
  Target single_target(bool with_namespace);
  std::vector<Parameter> signature();
  std::shared_ptr<MacroDefinition> macro_body(std::string name, std::vector<Parameter> parameters,
                                              std::string_view end);

  int loops_ = 0;  // around this place, within its macro
  std::set<std::string> blocks_;
  std::vector<Words> waiting_;  // ends that outer tags wait for
};

Body Parser::statements(const Words& ends) {
  const Nested nested(*this);
  Body body;
  for (;;) {
    const int line = current().line;
    switch (current().type) {
      case Token::Type::data:
        body.push_back({Data{next().text}, line});
        break;
      case Token::Type::variable_begin: {
        next();
        Print print;
        print.values.push_back(tuple());
        expect(Token::Type::variable_end);
        body.push_back({std::move(print), line});
        break;
      }
      case Token::Type::block_begin:
        next();
        for (const std::string_view end : ends)
          if (current().is_name(end)) return body;
        body.push_back(statement());
        expect(Token::Type::block_end);
        break;
      default:
        if (!ends.empty())
          fail(fmt::format("Unexpected end of template. Jinja was looking for the following tags: '{}'.",
                           fmt::join(ends, "' or '")));
        return body;
    }
  }
}

Body Parser::block(const Words& ends) {
  skip_if(":");
  expect(Token::Type::block_end);
  waiting_.push_back(ends);
  Body body = statements(ends);
  waiting_.pop_back();
  return body;
}

Body Parser::block_to(std::string_view end) {
  Body body = block({end});
  next();
  return body;
}

Body Parser::inner(const Words& ends) {
  const bool soft = std::exchange(soft_, false);
  Body body = block(ends);
  soft_ = soft;
  return body;
}

Statement Parser::statement() {
  const Token tag = current();
  if (tag.type != Token::Type::name) fail("tag name expected");
  const int line = tag.line;
  if (tag.text == "for") return for_statement(line);
  if (tag.text == "if") return if_statement(line);
  if (tag.text == "set") return set_statement(line);
  if (tag.text == "with") return with_statement(line);
  if (tag.text == "macro") return macro_statement(line);
  if (tag.text == "call") return call_statement(line);
  if (tag.text == "block" || tag.text == "generation") return block_statement(line);
  if (tag.text == "break" || tag.text == "continue") return loop_control(line);
  if (tag.text == "print") {
    next();
    Print print;
    while (current().type != Token::Type::block_end) {
      if (!print.values.empty()) expect(",");
      print.values.push_back(expression());
    }
    return {std::move(print), line};
  }
  if (tag.text == "filter") {
    next();
    FilterBlock filter;
    filter.filter = filters(nullptr, true);
    filter.body = inner({"endfilter"});
    next();
    return {std::move(filter), line};
  }
  return unavailable(line);
}

Statement Parser::unavailable(int line) {
  const std::string tag = current().text;
  if (tag == "autoescape") fail("the tag 'autoescape' is not supported");
  if (tag != "include" && tag != "import" && tag != "from" && tag != "extends") unknown_tag();
  while (current().type != Token::Type::block_end && current().type != Token::Type::end) next();
  return {Unavailable{fmt::format("'{}': a chat template is one text and can read no other", tag)}, line};
}

void Parser::unknown_tag() const {
  std::string what = current().type == Token::Type::name
                         ? fmt::format("Encountered unknown tag '{}'.", current().text)
                         : fmt::format("unexpected '{}'", current().description());
  if (!waiting_.empty())
    what +=
        fmt::format(" Jinja was looking for the following tags: '{}'.", fmt::join(waiting_.back(), "' or '"));
  fail(what);
}

Statement Parser::for_statement(int line) {
  next();
  For loop;
  loop.target = target("in", false);
  if (!skip_if_name("in")) fail(fmt::format("expected token 'in', got '{}'", current().description()));
  loop.items = tuple(false, false, "recursive");
  if (skip_if_name("if")) loop.test = expression();
  loop.recursive = skip_if_name("recursive");
  ++loops_;
  loop.body = inner({"endfor", "else"});
  --loops_;
  if (next().text == "else") {
    loop.otherwise = inner({"endfor"});
    next();
  }
  return {std::move(loop), line};
}

Statement Parser::if_statement(int line) {
  const bool soft = std::exchange(soft_, true);
  If out;
  std::string word = next().text;
  while (word != "endif") {
    if (word == "else") {
      out.otherwise = block_to("endif");
      break;
    }
    ExpressionPtr test = tuple(false);
    Body body = block({"elif", "else", "endif"});
    out.branches.emplace_back(std::move(test), std::move(body));
    word = next().text;
  }
  soft_ = soft;
  return {std::move(out), line};
}

Statement Parser::set_statement(int line) {
  next();
  Target to = target("", true);
  if (skip_if("=")) return {Set{std::move(to), tuple()}, line};
  SetBlock block{std::move(to), filters(nullptr), {}};
  block.body = inner({"endset"});
  next();
  return {std::move(block), line};
}

Statement Parser::with_statement(int line) {
  next();
  With with;
  while (current().type != Token::Type::block_end) {
    if (!with.values.empty()) expect(",");
    Target to = target("", false);
    expect("=");
    with.values.emplace_back(std::move(to), expression());
  }
  with.body = inner({"endwith"});
  next();
  return {std::move(with), line};
}

std::shared_ptr<MacroDefinition> Parser::macro_body(std::string name, std::vector<Parameter> parameters,
                                                    std::string_view end) {
  auto macro = std::make_shared<MacroDefinition>();
  macro->name = std::move(name);
  macro->parameters = std::move(parameters);
  macros_.push_back(macro.get());
  const int loops = std::exchange(loops_, 0);
  macro->body = inner({end});
  next();
  loops_ = loops;
  macros_.pop_back();
  return macro;
}

Statement Parser::macro_statement(int line) {
  next();
  std::string name = expect_name();
  std::vector<Parameter> parameters = signature();
  return {Macro{macro_body(std::move(name), std::move(parameters), "endmacro")}, line};
}

Statement Parser::call_statement(int line) {
  next();
  CallBlock block;
  std::vector<Parameter> parameters;
  if (current().is("(")) parameters = signature();
  block.call = expression();
  if (!std::holds_alternative<Call>(block.call->node)) fail("expected call", line);
  const auto caller = macro_body("caller", std::move(parameters), "endcall");
  caller->of_call = true;
  block.caller = caller;
  return {std::move(block), line};
}

Statement Parser::block_statement(int line) {
  const bool of_root = next().text == "block";
  if (of_root) {
    const std::string name = expect_name();
    if (!blocks_.insert(name).second) fail(fmt::format("block '{}' defined twice", name), line);
    skip_if_name("scoped");
    skip_if_name("required");
  }
  const int loops = std::exchange(loops_, 0);
  Block block{of_root, inner({of_root ? "endblock" : "endgeneration"})};
  next();
  loops_ = loops;
  if (of_root && current().type == Token::Type::name) next();
  return {std::move(block), line};
}

Statement Parser::loop_control(int line) {
  const std::string word = next().text;
  if (loops_ == 0) fail(fmt::format("'{}' outside loop", word), line);
  if (word == "break") return {Break{}, line};
  return {Continue{}, line};
}

Target Parser::single_target(bool with_namespace) {
  const Nested nested(*this);
  if (skip_if("(")) {
    Target out = target("", with_namespace);
    expect(")");
    return out;
  }
  Target out;
  const int line = current().line;
  if (current().type != Token::Type::name) fail(fmt::format("can't assign to '{}'", current().description()));
  out.name = next().text;
  for (const std::string_view constant : {"true", "false", "none", "True", "False", "None"})
    if (out.name == constant) fail("can't assign to 'const'", line);
  if (with_namespace && skip_if(".")) out.attribute = expect_name();
  return out;
}

Target Parser::target(std::string_view end, bool with_namespace) {
  Target first = single_target(with_namespace);
  if (!current().is(",")) return first;
  Target out;
  out.several.push_back(std::move(first));
  while (skip_if(",") && !ends_tuple(end) && !current().is("="))
    out.several.push_back(single_target(with_namespace));
  return out;
}

std::vector<Parameter> Parser::signature() {
  expect("(");
  std::vector<Parameter> out;
  while (!current().is(")")) {
    if (!out.empty()) expect(",");
    Parameter parameter{expect_name(), nullptr};
    if (skip_if("="))
      parameter.otherwise = expression();
    else if (!out.empty() && out.back().otherwise)
      fail("non-default argument follows default argument");
    out.push_back(std::move(parameter));
  }
  expect(")");
  return out;
}

}  // namespace

bool TokenReader::skip_if(std::string_view op) {
  if (!current().is(op)) return false;
  next();
  return true;
}

bool TokenReader::skip_if_name(std::string_view word) {
  if (!current().is_name(word)) return false;
  next();
  return true;
}

void TokenReader::expect(std::string_view op) {
  if (!skip_if(op)) fail(fmt::format("expected token '{}', got '{}'", op, current().description()));
}

void TokenReader::expect(Token::Type type) {
  if (current().type != type)
    fail(fmt::format("expected token '{}', got '{}'", Token{type, "", 0}.description(),
                     current().description()));
  next();
}

std::string TokenReader::expect_name() {
  if (current().type != Token::Type::name)
    fail(fmt::format("expected token 'name', got '{}'", current().description()));
  return next().text;
}

void TokenReader::fail(const std::string& what, int line) {
  throw TemplateError(what, TemplateError::Kind::fault, line);
}

void TokenReader::too_deep() const {
  throw TemplateError(fmt::format("the template is nested deeper than {} levels", kMaxTreeDepth),
                      TemplateError::Kind::limit, current().line);
}

Root parse(std::string_view source) {
  if (source.size() > kMaxTemplateBytes)
    throw TemplateError(fmt::format("the template has more than {} bytes", kMaxTemplateBytes),
                        TemplateError::Kind::limit);
  Root root{Parser(tokenize(source)).run(), {}};
  find_hidden_names(root);
  return root;
}

}  // namespace moerun::jinja
