#include "text/jinja/builtins.h"
#include "text/jinja/case_mapping.h"
#include "text/jinja/operators.h"
#include "text/jinja/text.h"
#include "text/unicode.h"

// jinja2's tests (https://jinja.palletsprojects.com/en/stable/templates/#list-of-builtin-tests).
namespace moerun::jinja {
namespace {

void no_arguments(const Arguments& arguments) { Parameters("this test", arguments, {}); }

template <bool (*kHolds)(const Value&)>
bool plain(Runtime&, const Value& input, const Arguments& arguments) {
  no_arguments(arguments);
  return kHolds(input);
}

bool is_defined(const Value& value) { return !value.undefined(); }
bool is_undefined(const Value& value) { return value.undefined(); }
bool is_none(const Value& value) { return value.is_none(); }
bool is_boolean(const Value& value) { return value.boolean(); }
bool is_true(const Value& value) { return value.boolean() && *value.boolean(); }
bool is_false(const Value& value) { return value.boolean() && !*value.boolean(); }
bool is_integer(const Value& value) { return value.integer(); }
bool is_float(const Value& value) { return value.floating(); }
bool is_any_number(const Value& value) { return value.is_number(); }
bool is_string(const Value& value) { return value.string(); }
bool is_mapping(const Value& value) { return value.dict(); }
bool is_escaped(const Value& value) { return value.string() && value.string()->markup; }
bool is_callable(const Value& value) {
  return value.undefined() || (value.object() && value.object()->callable());
}

bool is_iterable(const Value& value) {
  return value.string() || value.sequence() || value.dict() || value.undefined();
}

bool is_sequence(const Value& value) {
  if (const Sequence* sequence = value.sequence())
    return sequence->kind == Sequence::Kind::list || sequence->kind == Sequence::Kind::tuple ||
           sequence->kind == Sequence::Kind::range;
  return value.string() || value.dict() || value.undefined();
}

bool is_cased(const Value& value, bool (*wanted)(char32_t), bool (*unwanted)(char32_t)) {
  bool any = false;
  const std::string text = text_of(value);
  for (const std::string_view character : characters(text)) {
    const char32_t c = code_point_at(character, 0);
    if (unwanted(c) || is_title(c)) return false;
    any |= wanted(c);
  }
  return any;
}

bool is_lower_text(const Value& value) { return is_cased(value, is_lower, is_upper); }
bool is_upper_text(const Value& value) { return is_cased(value, is_upper, is_lower); }

bool odd(Runtime& runtime, const Value& input, const Arguments& arguments) {
  no_arguments(arguments);
  return equal(arithmetic(runtime, "%", input, Value(int64_t{2})), Value(int64_t{1}));
}

bool even(Runtime& runtime, const Value& input, const Arguments& arguments) {
  no_arguments(arguments);
  return equal(arithmetic(runtime, "%", input, Value(int64_t{2})), Value(int64_t{0}));
}

bool divisible_by(Runtime& runtime, const Value& input, const Arguments& arguments) {
  const Parameters given("divisibleby", arguments, {"num"}, 1);
  return equal(arithmetic(runtime, "%", input, given[0]), Value(int64_t{0}));
}

bool same_as(Runtime&, const Value& input, const Arguments& arguments) {
  const Parameters given("sameas", arguments, {"other"}, 1);
  return input.same_as(given[0]);
}

bool has_filter(Runtime&, const Value& input, const Arguments&) {
  return input.string() && find_filter(input.string()->text);
}

bool has_test(Runtime&, const Value& input, const Arguments&) {
  return input.string() && find_test(input.string()->text);
}

bool compared(Runtime& runtime, std::string_view op, const Value& input, const Arguments& arguments) {
  const Parameters given("this test", arguments, {"other"}, 1);
  return compare(runtime, op, input, given[0]);
}
bool eq(Runtime& r, const Value& v, const Arguments& a) { return compared(r, "==", v, a); }
bool ne(Runtime& r, const Value& v, const Arguments& a) { return compared(r, "!=", v, a); }
bool lt(Runtime& r, const Value& v, const Arguments& a) { return compared(r, "<", v, a); }
bool le(Runtime& r, const Value& v, const Arguments& a) { return compared(r, "<=", v, a); }
bool gt(Runtime& r, const Value& v, const Arguments& a) { return compared(r, ">", v, a); }
bool ge(Runtime& r, const Value& v, const Arguments& a) { return compared(r, ">=", v, a); }
bool in(Runtime& r, const Value& v, const Arguments& a) { return compared(r, "in", v, a); }

constexpr Named<TestFunction> kTests[] = {
    {"boolean", plain<is_boolean>},
    {"callable", plain<is_callable>},
    {"defined", plain<is_defined>},
    {"divisibleby", divisible_by},
    {"eq", eq},
    {"equalto", eq},
    {"==", eq},
    {"escaped", plain<is_escaped>},
    {"even", even},
    {"false", plain<is_false>},
    {"filter", has_filter},
    {"float", plain<is_float>},
    {"ge", ge},
    {">=", ge},
    {"greaterthan", gt},
    {"gt", gt},
    {">", gt},
    {"in", in},
    {"integer", plain<is_integer>},
    {"iterable", plain<is_iterable>},
    {"le", le},
    {"<=", le},
    {"lessthan", lt},
    {"lower", plain<is_lower_text>},
    {"lt", lt},
    {"<", lt},
    {"mapping", plain<is_mapping>},
    {"ne", ne},
    {"!=", ne},
    {"none", plain<is_none>},
    {"number", plain<is_any_number>},
    {"odd", odd},
    {"sameas", same_as},
    {"sequence", plain<is_sequence>},
    {"string", plain<is_string>},
    {"test", has_test},
    {"true", plain<is_true>},
    {"undefined", plain<is_undefined>},
    {"upper", plain<is_upper_text>},
};

}  // namespace

TestFunction find_test(std::string_view name) { return find_in(kTests, name); }

}  // namespace moerun::jinja
