#pragma once
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "text/jinja/value.h"

/// What a template says, as a tree at most kMaxTreeDepth deep. Immutable once parsed: any thread may read it.
namespace moerun::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;
struct Statement;
using Body = std::vector<Statement>;
/// Names that a scope sets without having read them, and that no scope around it knows: jinja2 gives these no
/// value from the template's variables, also where they are read before they are set (scopes.h).
using Hidden = std::vector<std::string>;

/// (a, b, *list, key=c, **dict)
struct CallArguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> keyword;
  ExpressionPtr list, dict;  ///< null: none
};

struct Literal {
  Value value;
};
struct Name {
  std::string name;
};
struct SequenceDisplay {  ///< [a, b] or (a, b)
  bool tuple;
  std::vector<ExpressionPtr> items;
};
struct DictDisplay {
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> entries;
};
struct Negation {  ///< -a or +a
  bool minus;
  ExpressionPtr operand;
};
struct Not {
  ExpressionPtr operand;
};
struct Arithmetic {
  std::string op;  ///< + - * / // % **
  ExpressionPtr left, right;
};
struct Logic {  ///< a and b, a or b
  bool both;
  ExpressionPtr left, right;
};
struct Comparison {  ///< a < b == c in d
  ExpressionPtr first;
  std::vector<std::pair<std::string, ExpressionPtr>> rest;  ///< == != < <= > >= in `not in`
};
struct Concatenation {  ///< a ~ b ~ c
  std::vector<ExpressionPtr> parts;
};
struct Conditional {                    ///< a if test else b
  ExpressionPtr test, then, otherwise;  ///< `otherwise` may be null
};
struct Attribute {
  ExpressionPtr object;
  std::string name;
};
struct Subscript {
  ExpressionPtr object, index;
};
struct SliceDisplay {  ///< start:stop:step, each may be null
  ExpressionPtr start, stop, step;
};
struct Call {
  ExpressionPtr callee;
  CallArguments arguments;
};
struct FilterUse {
  ExpressionPtr input;  ///< null: what a `filter` or `set` block captured
  std::string name;
  CallArguments arguments;
};
struct TestUse {
  ExpressionPtr input;
  std::string name;
  CallArguments arguments;
};

struct Expression {
  std::variant<Literal, Name, SequenceDisplay, DictDisplay, Negation, Not, Arithmetic, Logic, Comparison,
               Concatenation, Conditional, Attribute, Subscript, SliceDisplay, Call, FilterUse, TestUse>
      node;
  int line = 0;
  int depth = 1;          ///< of expressions within it
  bool constant = false;  ///< it names nothing, so jinja2 may have its value before anything runs
  bool slices = false;    ///< there is a slice within it
};

/// What `set`, `for` and `with` give a value to: a name, an attribute of a namespace, or several of them.
struct Target {
  std::string name;
  std::string attribute;        ///< of the namespace `name`; empty: the name itself
  std::vector<Target> several;  ///< where `name` is empty
};

struct Parameter {
  std::string name;
  ExpressionPtr otherwise;  ///< null: none
};

/// A macro, or the body of a call block.
struct MacroDefinition {
  std::string name;
  std::vector<Parameter> parameters;
  Body body;
  Hidden hidden;
  bool uses_caller = false, uses_varargs = false, uses_kwargs = false;
  bool of_call = false;  ///< the body of a `call` block
};

struct Data {
  std::string text;
};
struct Print {
  std::vector<ExpressionPtr> values;
};
struct If {
  std::vector<std::pair<ExpressionPtr, Body>> branches;
  Body otherwise;
};
struct For {
  Target target;
  ExpressionPtr items, test;  ///< `test` may be null
  bool recursive = false;
  Body body, otherwise;
  Hidden hidden, otherwise_hidden;
};
struct Set {
  Target target;
  ExpressionPtr value;
};
struct SetBlock {
  Target target;
  ExpressionPtr filter;  ///< null: none
  Body body;
  Hidden hidden;
};
struct Macro {
  std::shared_ptr<MacroDefinition> macro;
};
struct CallBlock {
  std::shared_ptr<MacroDefinition> caller;
  ExpressionPtr call;
};
struct FilterBlock {
  ExpressionPtr filter;
  Body body;
  Hidden hidden;
};
struct With {
  std::vector<std::pair<Target, ExpressionPtr>> values;
  Body body;
  Hidden hidden;
};
struct Block {  ///< `block`, which sees the template's variables alone, and `generation`
  bool of_root;
  Body body;
  Hidden hidden;
};
struct Break {};
struct Continue {};
/// Tags that need other templates: an error where one is reached, as in jinja2 without a loader.
struct Unavailable {
  std::string why;
};

struct Statement {
  std::variant<Data, Print, If, For, Set, SetBlock, Macro, CallBlock, FilterBlock, With, Block, Break,
               Continue, Unavailable>
      node;
  int line = 0;
};

/// A whole template.
struct Root {
  Body body;
  Hidden hidden;
};

}  // namespace moerun::jinja
