#pragma once
#include <type_traits>

#include "text/jinja/ast.h"

namespace moerun::jinja {

template <class See>
void see_all(const ExpressionPtr& expression, const See& see) {
  if (expression) see(*expression);
}

template <class See>
void see_all(const std::vector<ExpressionPtr>& expressions, const See& see) {
  for (const ExpressionPtr& expression : expressions) see_all(expression, see);
}

template <class First, class See>
void see_all(const std::vector<std::pair<First, ExpressionPtr>>& pairs, const See& see) {
  for (const auto& [first, expression] : pairs) {
    if constexpr (std::is_same_v<First, ExpressionPtr>) see_all(first, see);
    see_all(expression, see);
  }
}

template <class See>
void see_all(const CallArguments& arguments, const See& see) {
  see_all(arguments.positional, see), see_all(arguments.keyword, see);
  see_all(arguments.list, see), see_all(arguments.dict, see);
}

/// Shows the expressions that stand right within a node.
template <class See>
struct Within {
  const See& see;
  void operator()(const Literal&) const {}
  void operator()(const Name&) const {}
  void operator()(const SequenceDisplay& node) const { see_all(node.items, see); }
  void operator()(const DictDisplay& node) const { see_all(node.entries, see); }
  void operator()(const Negation& node) const { see_all(node.operand, see); }
  void operator()(const Not& node) const { see_all(node.operand, see); }
  void operator()(const Arithmetic& node) const { see_all(node.left, see), see_all(node.right, see); }
  void operator()(const Logic& node) const { see_all(node.left, see), see_all(node.right, see); }
  void operator()(const Comparison& node) const { see_all(node.first, see), see_all(node.rest, see); }
  void operator()(const Concatenation& node) const { see_all(node.parts, see); }
  void operator()(const Conditional& node) const {
    see_all(node.test, see), see_all(node.then, see), see_all(node.otherwise, see);
  }
  void operator()(const Attribute& node) const { see_all(node.object, see); }
  void operator()(const Subscript& node) const { see_all(node.object, see), see_all(node.index, see); }
  void operator()(const SliceDisplay& node) const {
    see_all(node.start, see), see_all(node.stop, see), see_all(node.step, see);
  }
  void operator()(const Call& node) const { see_all(node.callee, see), see_all(node.arguments, see); }
  void operator()(const FilterUse& node) const { see_all(node.input, see), see_all(node.arguments, see); }
  void operator()(const TestUse& node) const { see_all(node.input, see), see_all(node.arguments, see); }
};

}  // namespace moerun::jinja
