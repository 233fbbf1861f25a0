#include <algorithm>

#include "text/jinja/builtins.h"
#include "text/jinja/evaluator.h"
#include "text/jinja/operators.h"
#include "text/jinja/text.h"

namespace moerun::jinja {

namespace {

/// Whether jinja2 writes a value into the program that it makes of a template.
bool can_be_written(const Value& value) {
  if (value.undefined() || value.object()) return false;
  if (const Sequence* sequence = value.sequence())
    return sequence->kind != Sequence::Kind::generator &&
           std::all_of(sequence->items.begin(), sequence->items.end(), can_be_written);
  const Dict* dict = value.dict();
  return !dict || std::all_of(dict->entries().begin(), dict->entries().end(),
                              [](const Dict::Entry& entry) { return can_be_written(entry.second); });
}

}  // namespace

Value Evaluator::value(const Expression& expression, const ScopePtr& scope) {
  const Deeper deeper(*this);
  runtime_.step();
  line_ = expression.line;
  if (auto known = folded(expression, scope, false)) return std::move(*known);
  return std::visit([&](const auto& node) { return value(node, scope); }, expression.node);
}

std::optional<Value> Evaluator::folded(const Expression& expression, const ScopePtr& scope, bool printed) {
  if (!expression.constant || !expression.slices || folding_) return std::nullopt;
  folding_ = true;
  std::optional<Value> out;
  try {
    out = value(expression, scope);
  } catch (const TemplateError& error) {  // then it is told when it is reached
    if (error.kind() == TemplateError::Kind::limit) throw;
  }
  folding_ = false;
  if (out && !printed && !can_be_written(*out)) out.reset();
  return out;
}

Value Evaluator::value_or_none(const ExpressionPtr& expression, const ScopePtr& scope) {
  return expression ? value(*expression, scope) : Value();
}

Value Evaluator::value(const Literal& node, const ScopePtr&) { return node.value; }

Value Evaluator::value(const Name& node, const ScopePtr& scope) {
  constexpr size_t kNamesAStep = 16;
  const Scope::Found found = scope->find(node.name);
  runtime_.step(found.walked / kNamesAStep);
  if (found.value) return *found.value;
  if (found.hidden) return runtime_.undefined_name(node.name);
  if (const auto given = variables_.find(node.name); given != variables_.end()) return given->second;
  if (auto global = find_global(node.name)) return std::move(*global);
  return runtime_.undefined_name(node.name);
}

Value Evaluator::value(const SequenceDisplay& node, const ScopePtr& scope) {
  std::vector<Value> items;
  items.reserve(node.items.size());
  for (const ExpressionPtr& item : node.items) items.push_back(value(*item, scope));
  return node.tuple ? runtime_.tuple(std::move(items)) : runtime_.list(std::move(items));
}

Value Evaluator::value(const DictDisplay& node, const ScopePtr& scope) {
  Ref<Dict> dict = runtime_.new_dict();
  for (const auto& [key, member] : node.entries) {
    Value at = value(*key, scope);
    runtime_.step(at.weight());
    dict->set(std::move(at), value(*member, scope));
  }
  return runtime_.of_dict(std::move(dict));
}

Value Evaluator::value(const Negation& node, const ScopePtr& scope) {
  return negate(value(*node.operand, scope), node.minus);
}

Value Evaluator::value(const Not& node, const ScopePtr& scope) {
  return Value(!truth(value(*node.operand, scope)));
}

Value Evaluator::value(const Arithmetic& node, const ScopePtr& scope) {
  const Value left = value(*node.left, scope);
  return arithmetic(runtime_, node.op, left, value(*node.right, scope));
}

Value Evaluator::value(const Logic& node, const ScopePtr& scope) {
  Value left = value(*node.left, scope);
  return truth(left) == node.both ? value(*node.right, scope) : left;
}

Value Evaluator::value(const Comparison& node, const ScopePtr& scope) {
  Value left = value(*node.first, scope);
  for (const auto& [op, expression] : node.rest) {
    Value right = value(*expression, scope);
    if (!compare(runtime_, op, left, right)) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Evaluator::value(const Concatenation& node, const ScopePtr& scope) {
  std::string out;  // plain also of `safe` parts, where nothing escapes by itself
  for (const ExpressionPtr& part : node.parts) out += text_of(value(*part, scope));
  return runtime_.string(std::move(out));
}

Value Evaluator::value(const Conditional& node, const ScopePtr& scope) {
  if (truth(value(*node.test, scope))) return value(*node.then, scope);
  if (node.otherwise) return value(*node.otherwise, scope);
  return runtime_.undefined("the inline if-expression evaluated to false and no else section was defined.");
}

Value Evaluator::value(const Attribute& node, const ScopePtr& scope) {
  return get_attribute(runtime_, value(*node.object, scope), node.name);
}

Value Evaluator::value(const Subscript& node, const ScopePtr& scope) {
  const Value object = value(*node.object, scope);
  if (const auto* slice = std::get_if<SliceDisplay>(&node.index->node)) {
    const Value start = value_or_none(slice->start, scope), stop = value_or_none(slice->stop, scope);
    const Value step = value_or_none(slice->step, scope);
    if (!folding_) return get_slice(runtime_, object, start, stop, step);
    try {
      return get_slice(runtime_, object, start, stop, step);
    } catch (const TemplateError& error) {
      if (error.kind() == TemplateError::Kind::limit) throw;
      return runtime_.undefined_member(object, Value());
    }
  }
  return get_item(runtime_, object, value(*node.index, scope));
}

Value Evaluator::value(const SliceDisplay&, const ScopePtr&) {
  throw TemplateError("a slice stands alone between its brackets");
}

Arguments Evaluator::arguments(const CallArguments& node, const ScopePtr& scope) {
  Arguments out;
  for (const ExpressionPtr& argument : node.positional) out.positional.push_back(value(*argument, scope));
  if (node.list) {
    const Value list = value(*node.list, scope);
    for (Value& argument : iterate(runtime_, list)) out.positional.push_back(std::move(argument));
  }
  for (const auto& [name, argument] : node.keyword) out.keyword.emplace_back(name, value(*argument, scope));
  if (!node.dict) return out;
  const Value rest = value(*node.dict, scope);
  if (!rest.dict())
    throw TemplateError(fmt::format("argument after ** must be a mapping, not {}", type_name(rest)));
  runtime_.step(rest.dict()->size());
  for (const auto& [name, earlier] : out.keyword)
    if (rest.dict()->find(name))
      throw TemplateError(fmt::format("got multiple values for keyword argument '{}'", name));
  for (const auto& [key, argument] : rest.dict()->entries()) {
    if (!key.string()) throw TemplateError("keywords must be strings");
    out.keyword.emplace_back(key.string()->text, argument);
  }
  return out;
}

Value Evaluator::call(const Call& node, const ScopePtr& scope, const Value* caller) {
  const Value callee = value(*node.callee, scope);
  Arguments given = arguments(node.arguments, scope);
  if (caller) given.keyword.emplace_back("caller", *caller);
  require_defined(callee);
  if (!callee.object()) throw TemplateError(fmt::format("'{}' object is not callable", type_name(callee)));
  return callee.object()->call(runtime_, given);
}

Value Evaluator::value(const Call& node, const ScopePtr& scope) { return call(node, scope, nullptr); }

Value Evaluator::value(const FilterUse& node, const ScopePtr& scope) {
  const FilterFunction filter = find_filter(node.name);
  if (!filter) throw TemplateError(fmt::format("No filter named '{}' found.", node.name));
  const Value input = node.input ? value(*node.input, scope) : captured_;
  if (input.string()) runtime_.step(input.weight());
  return filter(runtime_, input, arguments(node.arguments, scope));
}

Value Evaluator::value(const TestUse& node, const ScopePtr& scope) {
  const TestFunction test = find_test(node.name);
  if (!test) throw TemplateError(fmt::format("No test named '{}' found.", node.name));
  const Value input = value(*node.input, scope);
  return Value(test(runtime_, input, arguments(node.arguments, scope)));
}

}  // namespace moerun::jinja
