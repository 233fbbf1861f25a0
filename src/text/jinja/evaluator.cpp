#include "text/jinja/evaluator.h"

#include <algorithm>

#include "text/jinja/builtins.h"
#include "text/jinja/loop.h"
#include "text/jinja/namespace.h"
#include "text/jinja/operators.h"
#include "text/jinja/text.h"

namespace moerun::jinja {

namespace {

constexpr size_t kNamesAStep = 16;  // looked at when a name is looked for

}  // namespace

/// A macro where it was defined, or the body of a call block as `caller`.
class MacroValue : public Object {
 public:
  MacroValue(Evaluator& evaluator, std::shared_ptr<const MacroDefinition> macro, ScopePtr scope)
      : evaluator_(evaluator), macro_(std::move(macro)), scope_(std::move(scope)) {}
  std::string_view type_name() const override { return "Macro"; }
  std::string text() const override {
    return macro_->of_call ? "<Macro anonymous>" : fmt::format("<Macro '{}'>", macro_->name);
  }
  bool callable() const override { return true; }
  Value call(Runtime&, const Arguments& arguments) override {
    if (!scope_) throw TemplateError("the template has ended");
    return evaluator_.call_macro(*macro_, scope_, arguments);
  }
  std::optional<Value> attribute(Runtime& runtime, std::string_view name) override {
    if (name == "name") return runtime.string(macro_->name);
    if (name == "catch_kwargs") return Value(macro_->uses_kwargs);
    if (name == "catch_varargs") return Value(macro_->uses_varargs);
    if (name == "caller") return Value(macro_->uses_caller);
    if (name != "arguments") return std::nullopt;
    std::vector<Value> names;
    for (const Parameter& parameter : macro_->parameters) names.push_back(runtime.string(parameter.name));
    return runtime.tuple(std::move(names));
  }

 private:
  Evaluator& evaluator_;
  std::shared_ptr<const MacroDefinition> macro_;
  ScopePtr scope_;
};

void Scope::set(std::string_view name, Value value) {
  for (auto& [known, old] : values_)
    if (known == name) {
      old = std::move(value);
      return;
    }
  values_.emplace_back(name, std::move(value));
}

Scope::Found Scope::find(std::string_view name) const {
  Found found;
  for (const Scope* scope = this; scope; scope = scope->outer_.get()) {
    found.walked += 1 + scope->values_.size() + scope->hidden_->size();
    for (const auto& [known, value] : scope->values_)
      if (known == name) {
        found.value = &value;
        return found;
      }
    found.hidden = std::find(scope->hidden_->begin(), scope->hidden_->end(), name) != scope->hidden_->end();
    if (found.hidden) return found;
  }
  return found;
}

Evaluator::Deeper::Deeper(Evaluator& evaluator) : evaluator_(evaluator) {
  if (++evaluator_.depth_ <= kMaxCallDepth) return;
  --evaluator_.depth_;
  throw TemplateError(fmt::format("the template's calls are nested deeper than {} constructs", kMaxCallDepth),
                      TemplateError::Kind::limit);
}

std::string Evaluator::run(const Root& root) {
  std::string out;
  root_ = std::make_shared<Scope>(nullptr, root.hidden);
  try {
    run(root.body, root_, out);
  } catch (const TemplateError& error) {
    root_->clear();
    throw TemplateError(error.what(), error.kind(), error.line() ? error.line() : line_);
  }
  root_->clear();
  return out;
}

void Evaluator::append(std::string_view text, std::string& out) {
  runtime_.step(text.size() / kBytesAStep);
  if (out.size() + text.size() > kMaxOutputBytes)
    throw TemplateError(fmt::format("the template makes more than {} MiB of text", kMaxOutputBytes >> 20),
                        TemplateError::Kind::limit);
  out += text;
}

Evaluator::Flow Evaluator::run(const Body& body, const ScopePtr& scope, std::string& out) {
  const Deeper deeper(*this);
  for (const Statement& statement : body)
    if (const Flow flow = run(statement, scope, out); flow != Flow::on) return flow;
  return Flow::on;
}

Evaluator::Flow Evaluator::run(const Statement& statement, const ScopePtr& scope, std::string& out) {
  runtime_.step();
  line_ = statement.line;
  return std::visit(
      [&](const auto& node) {
        using Node = std::decay_t<decltype(node)>;
        if constexpr (std::is_same_v<Node, Break>)
          return Flow::stop_loop;
        else if constexpr (std::is_same_v<Node, Continue>)
          return Flow::next_turn;
        else
          return run(node, scope, out);
      },
      statement.node);
}

Evaluator::Flow Evaluator::run(const Data& node, const ScopePtr&, std::string& out) {
  append(node.text, out);
  return Flow::on;
}

Evaluator::Flow Evaluator::run(const Print& node, const ScopePtr& scope, std::string& out) {
  for (const ExpressionPtr& expression : node.values) {
    const std::optional<Value> known = folded(*expression, scope, true);
    const Value printed = known ? *known : value(*expression, scope);
    if (const String* string = printed.string())
      append(string->text, out);
    else
      append(text_of(printed), out);
  }
  return Flow::on;
}

Evaluator::Flow Evaluator::run(const If& node, const ScopePtr& scope, std::string& out) {
  for (const auto& [test, body] : node.branches)
    if (truth(value(*test, scope))) return run(body, scope, out);
  return run(node.otherwise, scope, out);
}

Evaluator::Flow Evaluator::run(const For& node, const ScopePtr& scope, std::string& out) {
  loop(node, scope, value(*node.items, scope), 0, out);
  return Flow::on;
}

void Evaluator::loop(const For& node, const ScopePtr& scope, const Value& items, int64_t depth,
                     std::string& out) {
  const Deeper deeper(*this);
  Loop::Test test;
  if (node.test)
    test = [&](const Value& item) {
      static const Hidden kNone;
      const auto own = std::make_shared<Scope>(scope, kNone);
      assign(node.target, item, own);
      return truth(value(*node.test, own));
    };
  Loop::Render render;
  if (node.recursive)
    render = [&](const Value& inner, int64_t inner_depth) {
      std::string text;
      loop(node, scope, inner, inner_depth, text);
      return runtime_.string(std::move(text));
    };
  const auto state =
      std::make_shared<Loop>(iterate(runtime_, items), std::move(test), std::move(render), depth);
  // The closures above are of this call: what keeps the loop for later finds it ended.
  const std::shared_ptr<void> ended(nullptr, [&](void*) { state->finish(); });
  ScopePtr own;
  bool whole_turn = false;
  while (state->advance()) {
    runtime_.step();
    if (!own || own.use_count() > 1)
      own = std::make_shared<Scope>(scope, node.hidden);
    else
      own->clear();
    own->set("loop", Value(Ref<Object>(state)));
    assign(node.target, state->current(), own);
    const Flow flow = run(node.body, own, out);
    // As jinja2 compiles it: a turn counts when it reaches its end.
    whole_turn = whole_turn || flow == Flow::on;
    if (flow == Flow::stop_loop) break;
  }
  if (!whole_turn) run(node.otherwise, std::make_shared<Scope>(scope, node.otherwise_hidden), out);
}

Evaluator::Flow Evaluator::run(const Set& node, const ScopePtr& scope, std::string&) {
  assign(node.target, value(*node.value, scope), scope);
  return Flow::on;
}

Value Evaluator::filtered(const Expression& filter, std::string captured, const ScopePtr& scope) {
  const Value outer = std::exchange(captured_, runtime_.string(std::move(captured)));
  Value out = value(filter, scope);
  captured_ = outer;
  return out;
}

Evaluator::Flow Evaluator::run(const SetBlock& node, const ScopePtr& scope, std::string&) {
  std::string text;
  run(node.body, std::make_shared<Scope>(scope, node.hidden), text);
  assign(node.target,
         node.filter ? filtered(*node.filter, std::move(text), scope) : runtime_.string(std::move(text)),
         scope);
  return Flow::on;
}

Evaluator::Flow Evaluator::run(const FilterBlock& node, const ScopePtr& scope, std::string& out) {
  std::string text;
  run(node.body, std::make_shared<Scope>(scope, node.hidden), text);
  append(text_of(filtered(*node.filter, std::move(text), scope)), out);
  return Flow::on;
}

Evaluator::Flow Evaluator::run(const With& node, const ScopePtr& scope, std::string& out) {
  const auto own = std::make_shared<Scope>(scope, node.hidden);
  for (const auto& [target, expression] : node.values) assign(target, value(*expression, scope), own);
  run(node.body, own, out);
  return Flow::on;
}

Evaluator::Flow Evaluator::run(const Block& node, const ScopePtr& scope, std::string& out) {
  run(node.body, std::make_shared<Scope>(node.of_root ? root_ : scope, node.hidden), out);
  return Flow::on;
}

Evaluator::Flow Evaluator::run(const Unavailable& node, const ScopePtr&, std::string&) {
  throw TemplateError(node.why);
}

Value Evaluator::make_macro(const std::shared_ptr<const MacroDefinition>& macro, const ScopePtr& scope) {
  if (scope != root_) runtime_.keep(scope);
  return Value(Ref<Object>(std::make_shared<MacroValue>(*this, macro, scope)));
}

Evaluator::Flow Evaluator::run(const Macro& node, const ScopePtr& scope, std::string&) {
  scope->set(node.macro->name, make_macro(node.macro, scope));
  return Flow::on;
}

Evaluator::Flow Evaluator::run(const CallBlock& node, const ScopePtr& scope, std::string& out) {
  const Value caller = make_macro(node.caller, scope);
  append(text_of(call(std::get<Call>(node.call->node), scope, &caller)), out);
  return Flow::on;
}

Value Evaluator::call_macro(const MacroDefinition& macro, const ScopePtr& scope, const Arguments& arguments) {
  const Deeper deeper(*this);
  const auto own = std::make_shared<Scope>(scope, macro.hidden);
  std::vector<bool> taken(arguments.keyword.size());
  const auto keyword = [&](std::string_view name) -> const Value* {
    for (size_t i = 0; i < arguments.keyword.size(); ++i)
      if (arguments.keyword[i].first == name && !taken[i]) {
        taken[i] = true;
        return &arguments.keyword[i].second;
      }
    return nullptr;
  };
  const size_t count = macro.parameters.size(), given = arguments.positional.size();
  runtime_.step(count * (count + arguments.keyword.size()) / kNamesAStep);
  bool caller_is_parameter = false;
  for (size_t i = 0; i < count; ++i) {
    const Parameter& parameter = macro.parameters[i];
    caller_is_parameter |= parameter.name == "caller";
    const Value* passed = i < given ? &arguments.positional[i] : keyword(parameter.name);
    own->set(parameter.name, passed                ? *passed
                             : parameter.otherwise ? value(*parameter.otherwise, own)
                                                   : runtime_.undefined(fmt::format(
                                                         "parameter '{}' was not provided", parameter.name)));
  }
  if (macro.uses_caller && !caller_is_parameter) {
    const Value* caller = keyword("caller");
    own->set("caller", caller ? *caller : runtime_.undefined("No caller defined"));
  }
  Ref<Dict> rest = runtime_.new_dict();
  for (size_t i = 0; i < arguments.keyword.size(); ++i) {
    const auto& [name, passed] = arguments.keyword[i];
    if (taken[i]) continue;
    if (!macro.uses_kwargs)
      throw TemplateError(
          name == "caller"
              ? fmt::format("macro '{}' was invoked with two values for the special caller argument. This "
                            "is most likely a bug.",
                            macro.name)
              : fmt::format("macro '{}' takes no keyword argument '{}'", macro.name, name));
    rest->set(runtime_.string(name), passed);
  }
  if (macro.uses_kwargs) own->set("kwargs", runtime_.of_dict(std::move(rest)));
  if (macro.uses_varargs)
    own->set("varargs",
             runtime_.tuple(given > count ? std::vector<Value>(arguments.positional.begin() +
                                                                   static_cast<std::ptrdiff_t>(count),
                                                               arguments.positional.end())
                                          : std::vector<Value>()));
  else if (given > count)
    throw TemplateError(fmt::format("macro '{}' takes not more than {} argument(s)", macro.name, count));
  std::string out;
  run(macro.body, own, out);
  return runtime_.string(std::move(out));
}

void Evaluator::assign(const Target& target, const Value& value, const ScopePtr& scope) {
  if (target.several.empty()) {
    if (target.attribute.empty()) return scope->set(target.name, value);
    const Value* found = scope->find(target.name).value;
    auto* space = found && found->object() ? dynamic_cast<Namespace*>(found->object()) : nullptr;
    if (!space) throw TemplateError("cannot assign attribute on non-namespace object");
    return space->set(runtime_, target.attribute, value);
  }
  if (!value.sequence() && !value.dict() && !value.string()) {
    require_defined(value);
    throw TemplateError(fmt::format("cannot unpack non-iterable {} object", type_name(value)));
  }
  const std::vector<Value> parts = iterate(runtime_, value);
  if (parts.size() > target.several.size())
    throw TemplateError(fmt::format("too many values to unpack (expected {})", target.several.size()));
  if (parts.size() < target.several.size())
    throw TemplateError(fmt::format("not enough values to unpack (expected {}, got {})",
                                    target.several.size(), parts.size()));
  for (size_t i = 0; i < parts.size(); ++i) assign(target.several[i], parts[i], scope);
}

}  // namespace moerun::jinja
