#include "text/jinja/scopes.h"

#include <map>
#include <set>
#include <string>

namespace moerun::jinja {
namespace {

/// How a name of a scope begins.
enum class Begin { resolved, undefined, parameter, alias };

class Symbols {
 public:
  explicit Symbols(const Symbols* outer) : outer_(outer), copied_(outer->copied_) {}
  explicit Symbols(size_t* copied) : outer_(nullptr), copied_(copied) {}

  /// As a branch begins. Counted, because a template could make many of many names.
  Symbols branch() const {
    if ((*copied_ += 1 + names_.size()) > kMaxNamesInBranches)
      throw TemplateError("the template has too many names and branches", TemplateError::Kind::limit);
    return *this;
  }

  void load(const std::string& name) {
    if (!knows(name)) names_[name] = Begin::resolved;
  }
  void store(const std::string& name) {
    stored_.insert(name);
    if (names_.count(name) == 0)
      names_[name] = outer_ && outer_->knows(name) ? Begin::alias : Begin::undefined;
  }
  void parameter(const std::string& name) {
    stored_.insert(name);
    names_[name] = Begin::parameter;
  }
  /// What was set in a branch alone begins as what is around.
  void join(const std::vector<Symbols>& branches) {
    std::set<std::string> stored;
    for (const Symbols& branch : branches)
      for (const std::string& name : branch.stored_)
        if (stored_.count(name) == 0) stored.insert(name);
    for (const Symbols& branch : branches) {
      for (const auto& [name, begin] : branch.names_) names_[name] = begin;
      stored_.insert(branch.stored_.begin(), branch.stored_.end());
    }
    for (const std::string& name : stored)
      names_[name] = outer_ && outer_->knows(name) ? Begin::alias : Begin::resolved;
  }
  Hidden hidden() const {
    Hidden out;
    for (const auto& [name, begin] : names_)
      if (begin == Begin::undefined) out.push_back(name);
    return out;
  }

 private:
  bool knows(const std::string& name) const {
    return names_.count(name) > 0 || (outer_ && outer_->knows(name));
  }
  const Symbols* outer_;
  size_t* copied_;
  std::map<std::string, Begin> names_;
  std::set<std::string> stored_;
};

/// Notes what expressions read.
class Reads {
 public:
  explicit Reads(Symbols& symbols) : symbols_(symbols) {}

  void operator()(const ExpressionPtr& expression) {
    if (expression) std::visit([this](const auto& node) { visit(node); }, expression->node);
  }

 private:
  void visit(const Literal&) {}
  void visit(const Name& node) { symbols_.load(node.name); }
  void visit(const SequenceDisplay& node) {
    for (const ExpressionPtr& item : node.items) (*this)(item);
  }
  void visit(const DictDisplay& node) {
    for (const auto& [key, value] : node.entries) {
      (*this)(key);
      (*this)(value);
    }
  }
  void visit(const Negation& node) { (*this)(node.operand); }
  void visit(const Not& node) { (*this)(node.operand); }
  void visit(const Arithmetic& node) { both(node.left, node.right); }
  void visit(const Logic& node) { both(node.left, node.right); }
  void visit(const Comparison& node) {
    (*this)(node.first);
    for (const auto& [op, operand] : node.rest) (*this)(operand);
  }
  void visit(const Concatenation& node) {
    for (const ExpressionPtr& part : node.parts) (*this)(part);
  }
  void visit(const Conditional& node) {
    (*this)(node.test);
    both(node.then, node.otherwise);
  }
  void visit(const Attribute& node) { (*this)(node.object); }
  void visit(const Subscript& node) { both(node.object, node.index); }
  void visit(const SliceDisplay& node) {
    both(node.start, node.stop);
    (*this)(node.step);
  }
  void visit(const Call& node) {
    (*this)(node.callee);
    visit(node.arguments);
  }
  void visit(const FilterUse& node) {
    (*this)(node.input);
    visit(node.arguments);
  }
  void visit(const TestUse& node) {
    (*this)(node.input);
    visit(node.arguments);
  }
  void visit(const CallArguments& arguments) {
    for (const ExpressionPtr& argument : arguments.positional) (*this)(argument);
    for (const auto& [name, argument] : arguments.keyword) (*this)(argument);
    both(arguments.list, arguments.dict);
  }
  void both(const ExpressionPtr& first, const ExpressionPtr& second) {
    (*this)(first);
    (*this)(second);
  }

  Symbols& symbols_;
};

void store(const Target& target, Symbols& symbols, bool as_parameter = false) {
  for (const Target& one : target.several) store(one, symbols, as_parameter);
  if (!target.several.empty()) return;
  if (!target.attribute.empty())
    symbols.load(target.name);
  else if (as_parameter)
    symbols.parameter(target.name);
  else
    symbols.store(target.name);
}

void note(const Body& body, Symbols& symbols);

/// What a statement reads and sets in the scope that it stands in.
class Noted {
 public:
  explicit Noted(Symbols& symbols) : symbols_(symbols), reads_(symbols) {}
  void operator()(const Data&) {}
  void operator()(const Print& node) {
    for (const ExpressionPtr& value : node.values) reads_(value);
  }
  void operator()(const If& node) { branch(node, 0); }
  void operator()(const For& node) { reads_(node.items); }
  void operator()(const Set& node) {
    reads_(node.value);
    store(node.target, symbols_);
  }
  void operator()(const SetBlock& node) { store(node.target, symbols_); }
  void operator()(const Macro& node) { symbols_.store(node.macro->name); }
  void operator()(const CallBlock& node) { reads_(node.call); }
  void operator()(const FilterBlock& node) { reads_(node.filter); }
  void operator()(const With& node) {
    for (const auto& [target, value] : node.values) reads_(value);
  }
  void operator()(const Block&) {}
  void operator()(const Break&) {}
  void operator()(const Continue&) {}
  void operator()(const Unavailable&) {}

 private:
  /// The branches from `first` on; jinja2 takes each `elif` for an `if` of its own.
  void branch(const If& node, size_t first) {
    reads_(node.branches[first].first);
    Symbols then = symbols_.branch(), others = symbols_.branch(), otherwise = symbols_.branch();
    note(node.branches[first].second, then);
    for (size_t i = first + 1; i < node.branches.size(); ++i) {
      Noted of_elif(others);
      of_elif.reads_(node.branches[i].first);
      Symbols body = others.branch();
      note(node.branches[i].second, body);
      others.join({body});
    }
    note(node.otherwise, otherwise);
    symbols_.join({then, others, otherwise});
  }

  Symbols& symbols_;
  Reads reads_;
};

void note(const Body& body, Symbols& symbols) {
  for (const Statement& statement : body) std::visit(Noted(symbols), statement.node);
}

void visit_scopes(Body& body, const Symbols& symbols, const Symbols& root);

/// The scope of `body`, its parameters set: what it hides, and the scopes within.
Hidden visit_scope(Body& body, Symbols& symbols, const Symbols& root) {
  note(body, symbols);
  visit_scopes(body, symbols, root);
  return symbols.hidden();
}

void visit_macro(MacroDefinition& macro, const Symbols& symbols, const Symbols& root) {
  Symbols own(&symbols);
  for (const Parameter& parameter : macro.parameters) own.parameter(parameter.name);
  for (const Parameter& parameter : macro.parameters) Reads{own}(parameter.otherwise);
  if (macro.uses_caller) own.parameter("caller");
  if (macro.uses_varargs) own.parameter("varargs");
  if (macro.uses_kwargs) own.parameter("kwargs");
  macro.hidden = visit_scope(macro.body, own, root);
}

/// Statements that have scopes of their own.
class Scopes {
 public:
  Scopes(const Symbols& symbols, const Symbols& root) : symbols_(symbols), root_(root) {}
  void operator()(If& node) {
    for (auto& [test, body] : node.branches) visit_scopes(body, symbols_, root_);
    visit_scopes(node.otherwise, symbols_, root_);
  }
  void operator()(For& node) {
    Symbols own(&symbols_), otherwise(&symbols_);
    store(node.target, own, true);
    own.parameter("loop");
    node.hidden = visit_scope(node.body, own, root_);
    node.otherwise_hidden = visit_scope(node.otherwise, otherwise, root_);
  }
  void operator()(SetBlock& node) { node.hidden = inner(node.body, symbols_); }
  void operator()(FilterBlock& node) {
    Symbols own(&symbols_);
    Reads{own}(node.filter);
    node.hidden = visit_scope(node.body, own, root_);
  }
  void operator()(With& node) {
    Symbols own(&symbols_);
    for (const auto& [target, value] : node.values) store(target, own, true);
    node.hidden = visit_scope(node.body, own, root_);
  }
  void operator()(Block& node) { node.hidden = inner(node.body, node.of_root ? root_ : symbols_); }
  void operator()(Macro& node) { visit_macro(*node.macro, symbols_, root_); }
  void operator()(CallBlock& node) { visit_macro(*node.caller, symbols_, root_); }
  template <class Other>
  void operator()(Other&) {}

 private:
  Hidden inner(Body& body, const Symbols& outer) {
    Symbols own(&outer);
    return visit_scope(body, own, root_);
  }
  const Symbols& symbols_;
  const Symbols& root_;
};

void visit_scopes(Body& body, const Symbols& symbols, const Symbols& root) {
  for (Statement& statement : body) std::visit(Scopes(symbols, root), statement.node);
}

}  // namespace

void find_hidden_names(Root& root) {
  size_t copied = 0;
  Symbols symbols(&copied);
  note(root.body, symbols);
  visit_scopes(root.body, symbols, symbols);
  root.hidden = symbols.hidden();
}

}  // namespace moerun::jinja
