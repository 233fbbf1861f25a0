#pragma once
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/runtime.h"

namespace moerun::jinja {

/// A template's variables by name.
using Variables = std::map<std::string, Value, std::less<>>;

/// Names and their values in one scope, within another. A loop's turn, a macro's call and most blocks have
/// their own; `if` has none. Macros keep the scope they stand in.
class Scope : public Clearable {
 public:
  Scope(std::shared_ptr<Scope> outer, const Hidden& hidden) : outer_(std::move(outer)), hidden_(&hidden) {}
  void set(std::string_view name, Value value);  ///< `name` must outlive the scope
  struct Found {
    const Value* value = nullptr;  ///< null: neither here nor around, or hidden
    bool hidden = false;           ///< it is a name of a scope's, without a value yet
    size_t walked = 0;             ///< names and scopes looked at
  };
  Found find(std::string_view name) const;
  void clear() override { values_.clear(); }

 private:
  std::shared_ptr<Scope> outer_;
  const Hidden* hidden_;
  std::vector<std::pair<std::string_view, Value>> values_;
};
using ScopePtr = std::shared_ptr<Scope>;

/// Walks a parsed template. One object renders once. Thread contract: one thread.
class Evaluator {
 public:
  Evaluator(Runtime& runtime, const Variables& variables) : runtime_(runtime), variables_(variables) {}

  /// What the template prints. Throws TemplateError with a line.
  std::string run(const Root& root);

 private:
  friend class MacroValue;
  friend class Loop;
  enum class Flow { on, stop_loop, next_turn };

  // Statements, into `out`.
  Flow run(const Body& body, const ScopePtr& scope, std::string& out);
  Flow run(const Statement& statement, const ScopePtr& scope, std::string& out);
  Flow run(const Data& node, const ScopePtr& scope, std::string& out);
  Flow run(const Print& node, const ScopePtr& scope, std::string& out);
  Flow run(const If& node, const ScopePtr& scope, std::string& out);
  Flow run(const For& node, const ScopePtr& scope, std::string& out);
  Flow run(const Set& node, const ScopePtr& scope, std::string& out);
  Flow run(const SetBlock& node, const ScopePtr& scope, std::string& out);
  Flow run(const Macro& node, const ScopePtr& scope, std::string& out);
  Flow run(const CallBlock& node, const ScopePtr& scope, std::string& out);
  Flow run(const FilterBlock& node, const ScopePtr& scope, std::string& out);
  Flow run(const With& node, const ScopePtr& scope, std::string& out);
  Flow run(const Block& node, const ScopePtr& scope, std::string& out);
  Flow run(const Unavailable& node, const ScopePtr& scope, std::string& out);
  void loop(const For& node, const ScopePtr& scope, const Value& items, int64_t depth, std::string& out);
  Value make_macro(const std::shared_ptr<const MacroDefinition>& macro, const ScopePtr& scope);
  Value call_macro(const MacroDefinition& macro, const ScopePtr& scope, const Arguments& arguments);
  void assign(const Target& target, const Value& value, const ScopePtr& scope);
  /// `filter` on what a block captured.
  Value filtered(const Expression& filter, std::string captured, const ScopePtr& scope);
  void append(std::string_view text, std::string& out);

  // Expressions.
  Value value(const Expression& expression, const ScopePtr& scope);
  /// The value of what names nothing, as jinja2 has it where it knows it before a template runs: a slice that
  /// Python refuses is undefined there. None where jinja2 waits. Only where there is a slice: else both are
  /// alike.
  std::optional<Value> folded(const Expression& expression, const ScopePtr& scope, bool printed);
  Value value_or_none(const ExpressionPtr& expression, const ScopePtr& scope);
  Value value(const Literal& node, const ScopePtr& scope);
  Value value(const Name& node, const ScopePtr& scope);
  Value value(const SequenceDisplay& node, const ScopePtr& scope);
  Value value(const DictDisplay& node, const ScopePtr& scope);
  Value value(const Negation& node, const ScopePtr& scope);
  Value value(const Not& node, const ScopePtr& scope);
  Value value(const Arithmetic& node, const ScopePtr& scope);
  Value value(const Logic& node, const ScopePtr& scope);
  Value value(const Comparison& node, const ScopePtr& scope);
  Value value(const Concatenation& node, const ScopePtr& scope);
  Value value(const Conditional& node, const ScopePtr& scope);
  Value value(const Attribute& node, const ScopePtr& scope);
  Value value(const Subscript& node, const ScopePtr& scope);
  Value value(const SliceDisplay& node, const ScopePtr& scope);
  Value value(const Call& node, const ScopePtr& scope);
  Value value(const FilterUse& node, const ScopePtr& scope);
  Value value(const TestUse& node, const ScopePtr& scope);
  Value call(const Call& node, const ScopePtr& scope, const Value* caller);
  Arguments arguments(const CallArguments& node, const ScopePtr& scope);

  /// One more construct at work.
  class Deeper {
   public:
    explicit Deeper(Evaluator& evaluator);
    ~Deeper() { --evaluator_.depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;

   private:
    Evaluator& evaluator_;
  };

  Runtime& runtime_;
  const Variables& variables_;
  ScopePtr root_;
  int line_ = 0;
  int depth_ = 0;
  bool folding_ = false;
  Value captured_;  // what the block captured whose filter is at work
};

}  // namespace moerun::jinja
