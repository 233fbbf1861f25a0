#include <algorithm>
#include <iterator>
#include <string_view>
#include <type_traits>

#include "text/jinja/builtins.h"
#include "text/jinja/parser.h"
#include "text/jinja/within.h"

namespace moerun::jinja {
namespace {

// What has no value before a template runs, whatever stands within it; filters that call others by their
// names need the template's context.
template <class Node>
bool needs_names(const Node&) {
  return std::is_same_v<Node, Name> || std::is_same_v<Node, Attribute> || std::is_same_v<Node, Call>;
}
bool needs_names(const FilterUse& node) {
  constexpr std::string_view kOfContext[] = {"map", "select", "reject", "selectattr", "rejectattr", "random"};
  return !node.input ||
         std::find(std::begin(kOfContext), std::end(kOfContext), node.name) != std::end(kOfContext);
}

}  // namespace

template <class Node>
ExpressionPtr ExpressionParser::make(Node node, int line) {
  Expression out{.line = line, .constant = !needs_names(node), .slices = std::is_same_v<Node, SliceDisplay>};
  const auto see = [&out](const Expression& within) {
    out.depth = std::max(out.depth, within.depth + 1);
    out.constant = out.constant && within.constant;
    out.slices = out.slices || within.slices;
  };
  Within<decltype(see)>{see}(node);
  if (out.depth > kMaxTreeDepth) too_deep();
  out.node = std::move(node);
  return std::make_unique<const Expression>(std::move(out));
}

ExpressionPtr ExpressionParser::expression(bool conditional) {
  const Nested nested(*this);
  if (!conditional) return disjunction();
  const int line = current().line;
  const bool soft = soft_;
  const size_t unknown = unknown_.size();
  ExpressionPtr out = disjunction();
  while (skip_if_name("if")) {
    soft_ = true;
    unknown_.resize(unknown);  // what is before `if` may not be reached either
    ExpressionPtr test = disjunction();
    ExpressionPtr otherwise = skip_if_name("else") ? expression() : nullptr;
    out = make(Conditional{std::move(test), std::move(out), std::move(otherwise)}, line);
  }
  soft_ = soft;
  return out;
}

ExpressionPtr ExpressionParser::disjunction() {
  ExpressionPtr left = conjunction();
  for (int line = current().line; skip_if_name("or"); line = current().line)
    left = make(Logic{false, std::move(left), conjunction()}, line);
  return left;
}

ExpressionPtr ExpressionParser::conjunction() {
  ExpressionPtr left = negation();
  for (int line = current().line; skip_if_name("and"); line = current().line)
    left = make(Logic{true, std::move(left), negation()}, line);
  return left;
}

ExpressionPtr ExpressionParser::negation() {
  const int line = current().line;
  if (!skip_if_name("not")) return comparison();
  const Nested nested(*this);
  return make(Not{negation()}, line);
}

ExpressionPtr ExpressionParser::comparison() {
  static constexpr std::string_view kOperators[] = {"==", "!=", "<", "<=", ">", ">="};
  const int line = current().line;
  ExpressionPtr first = sum();
  std::vector<std::pair<std::string, ExpressionPtr>> rest;
  for (;;) {
    const auto is_current = [&](std::string_view op) { return current().is(op); };
    if (std::any_of(std::begin(kOperators), std::end(kOperators), is_current)) {
      std::string op = next().text;
      rest.emplace_back(std::move(op), sum());
    } else if (skip_if_name("in")) {
      rest.emplace_back("in", sum());
    } else if (current().is_name("not") && look().is_name("in")) {
      next();
      next();
      rest.emplace_back("not in", sum());
    } else {
      break;
    }
  }
  return rest.empty() ? std::move(first) : make(Comparison{std::move(first), std::move(rest)}, line);
}

ExpressionPtr ExpressionParser::sum() {
  ExpressionPtr left = concatenation();
  while (current().is("+") || current().is("-")) {
    const Token op = next();
    left = make(Arithmetic{op.text, std::move(left), concatenation()}, op.line);
  }
  return left;
}

ExpressionPtr ExpressionParser::concatenation() {
  const int line = current().line;
  ExpressionPtr first = product();
  if (!current().is("~")) return first;
  std::vector<ExpressionPtr> parts;
  parts.push_back(std::move(first));
  while (skip_if("~")) parts.push_back(product());
  return make(Concatenation{std::move(parts)}, line);
}

ExpressionPtr ExpressionParser::product() {
  ExpressionPtr left = power();
  while (current().is("*") || current().is("/") || current().is("//") || current().is("%")) {
    const Token op = next();
    left = make(Arithmetic{op.text, std::move(left), power()}, op.line);
  }
  return left;
}

ExpressionPtr ExpressionParser::power() {
  ExpressionPtr left = unary();
  while (current().is("**")) {
    const Token op = next();
    left = make(Arithmetic{op.text, std::move(left), unary()}, op.line);
  }
  return left;
}

ExpressionPtr ExpressionParser::unary(bool with_filters) {
  const Nested nested(*this);
  const int line = current().line;
  ExpressionPtr out;
  if (current().is("-") || current().is("+")) {
    const bool minus = next().text == "-";
    out = make(Negation{minus, unary(false)}, line);
  } else {
    out = primary();
  }
  out = postfix(std::move(out));
  return with_filters ? filter_or_test(std::move(out)) : std::move(out);
}

ExpressionPtr ExpressionParser::name_or_constant() {
  const Token token = next();
  if (token.text == "true" || token.text == "True") return make(Literal{Value(true)}, token.line);
  if (token.text == "false" || token.text == "False") return make(Literal{Value(false)}, token.line);
  if (token.text == "none" || token.text == "None") return make(Literal{Value()}, token.line);
  for (MacroDefinition* macro : macros_) {
    macro->uses_caller |= token.text == "caller";
    macro->uses_varargs |= token.text == "varargs";
    macro->uses_kwargs |= token.text == "kwargs";
  }
  return make(Name{token.text}, token.line);
}

ExpressionPtr ExpressionParser::primary() {
  const int line = current().line;
  if (current().type == Token::Type::name) return name_or_constant();
  if (current().type == Token::Type::number) return make(Literal{next().number}, line);
  if (current().type == Token::Type::string) {
    std::string text;
    while (current().type == Token::Type::string) text += next().text;
    auto string = std::make_shared<String>();
    string->ascii =
        std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
    string->text = std::move(text);
    return make(Literal{Value(std::move(string))}, line);
  }
  if (skip_if("(")) {
    ExpressionPtr out = tuple(true, true);
    expect(")");
    return out;
  }
  if (current().is("[")) return list_display();
  if (current().is("{")) return dict_display();
  fail(fmt::format("unexpected '{}'", current().description()));
}

bool ExpressionParser::ends_tuple(std::string_view end) const {
  return current().type == Token::Type::variable_end || current().type == Token::Type::block_end ||
         current().is(")") || (!end.empty() && current().is_name(end));
}

ExpressionPtr ExpressionParser::tuple(bool conditional, bool parenthesised, std::string_view end) {
  const int line = current().line;
  std::vector<ExpressionPtr> items;
  bool is_tuple = false;
  for (;;) {
    if (!items.empty()) expect(",");
    if (ends_tuple(end)) break;
    items.push_back(expression(conditional));
    if (!current().is(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !items.empty()) return std::move(items.front());
  if (items.empty() && !parenthesised)
    fail(fmt::format("Expected an expression, got '{}'", current().description()));
  return make(SequenceDisplay{true, std::move(items)}, line);
}

ExpressionPtr ExpressionParser::list_display() {
  const int line = next().line;
  std::vector<ExpressionPtr> items;
  while (!current().is("]")) {
    if (!items.empty()) expect(",");
    if (current().is("]")) break;
    items.push_back(expression());
  }
  expect("]");
  return make(SequenceDisplay{false, std::move(items)}, line);
}

ExpressionPtr ExpressionParser::dict_display() {
  const int line = next().line;
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> entries;
  while (!current().is("}")) {
    if (!entries.empty()) expect(",");
    if (current().is("}")) break;
    ExpressionPtr key = expression();
    expect(":");
    entries.emplace_back(std::move(key), expression());
  }
  expect("}");
  return make(DictDisplay{std::move(entries)}, line);
}

ExpressionPtr ExpressionParser::postfix(ExpressionPtr object) {
  for (;;) {
    if (current().is(".") || current().is("["))
      object = subscript(std::move(object));
    else if (current().is("("))
      object = call(std::move(object));
    else
      return object;
  }
}

ExpressionPtr ExpressionParser::filter_or_test(ExpressionPtr input) {
  for (;;) {
    if (current().is("|"))
      input = filters(std::move(input));
    else if (current().is_name("is"))
      input = test(std::move(input));
    else if (current().is("("))
      input = call(std::move(input));
    else
      return input;
  }
}

ExpressionPtr ExpressionParser::subscript(ExpressionPtr object) {
  const int line = current().line;
  if (skip_if(".")) {
    const Token member = next();
    if (member.type == Token::Type::name) return make(Attribute{std::move(object), member.text}, line);
    if (member.type != Token::Type::number || !member.number.integer())
      fail("expected name or number", member.line);
    return make(Subscript{std::move(object), make(Literal{member.number}, line)}, line);
  }
  expect("[");
  std::vector<ExpressionPtr> indices;
  while (!current().is("]")) {
    if (!indices.empty()) expect(",");
    indices.push_back(slice_or_index());
  }
  expect("]");
  ExpressionPtr index = indices.size() == 1 ? std::move(indices.front())
                                            : make(SequenceDisplay{true, std::move(indices)}, line);
  return make(Subscript{std::move(object), std::move(index)}, line);
}

ExpressionPtr ExpressionParser::slice_or_index() {
  const int line = current().line;
  SliceDisplay slice;
  if (!skip_if(":")) {
    slice.start = expression();
    if (!skip_if(":")) return std::move(slice.start);
  }
  const auto ends = [&] { return current().is("]") || current().is(","); };
  if (!current().is(":") && !ends()) slice.stop = expression();
  if (skip_if(":") && !ends()) slice.step = expression();
  return make(std::move(slice), line);
}

CallArguments ExpressionParser::call_arguments() {
  const int line = current().line;
  expect("(");
  CallArguments out;
  const auto ensure = [&](bool holds) {
    if (!holds) fail("invalid syntax for function call expression", line);
  };
  for (bool first = true; !current().is(")"); first = false) {
    if (!first) {
      expect(",");
      if (current().is(")")) break;
    }
    if (skip_if("*")) {
      ensure(!out.list && !out.dict);
      out.list = expression();
    } else if (skip_if("**")) {
      ensure(!out.dict);
      out.dict = expression();
    } else if (current().type == Token::Type::name && look().is("=")) {
      ensure(!out.dict);
      std::string key = next().text;
      next();
      for (const auto& [earlier, value] : out.keyword)
        if (earlier == key) fail(fmt::format("keyword argument repeated: {}", key), line);
      out.keyword.emplace_back(std::move(key), expression());
    } else {
      ensure(!out.list && !out.dict && out.keyword.empty());
      out.positional.push_back(expression());
    }
  }
  expect(")");
  return out;
}

ExpressionPtr ExpressionParser::call(ExpressionPtr callee) {
  const int line = current().line;
  return make(Call{std::move(callee), call_arguments()}, line);
}

std::string ExpressionParser::dotted_name() {
  std::string name = expect_name();
  while (skip_if(".")) name += "." + expect_name();
  return name;
}

ExpressionPtr ExpressionParser::filters(ExpressionPtr input, bool at_name) {
  while (at_name || skip_if("|")) {
    at_name = false;
    const int line = current().line;
    FilterUse use{std::move(input), dotted_name(), {}};
    if (!soft_ && !find_filter(use.name))
      unknown_.push_back({fmt::format("No filter named '{}'.", use.name), line});
    if (current().is("(")) use.arguments = call_arguments();
    input = make(std::move(use), line);
  }
  return input;
}

ExpressionPtr ExpressionParser::test(ExpressionPtr input) {
  next();  // `is`
  const int line = current().line;
  const bool negated = skip_if_name("not");
  TestUse use{std::move(input), dotted_name(), {}};
  if (!soft_ && !find_test(use.name))
    unknown_.push_back({fmt::format("No test named '{}'.", use.name), line});
  const Token& after = current();
  const bool word = after.type == Token::Type::name && !after.is_name("else") && !after.is_name("or") &&
                    !after.is_name("and");
  if (after.is("(")) {
    use.arguments = call_arguments();
  } else if (word || after.type == Token::Type::string || after.type == Token::Type::number ||
             after.is("[") || after.is("{")) {
    if (after.is_name("is")) fail("You cannot chain multiple tests with is");
    use.arguments.positional.push_back(postfix(primary()));
  }
  ExpressionPtr out = make(std::move(use), line);
  return negated ? make(Not{std::move(out)}, line) : std::move(out);
}

}  // namespace moerun::jinja
