#pragma once
#include "text/jinja/ast.h"

namespace moerun::jinja {

/// Finds the names that each scope hides, as jinja2 finds them before it runs a template (its idtracking.py):
/// a scope's names are those that are read or set in it, not in scopes within; one that is set first, outside
/// of any branch, and that no scope around has a name for, begins undefined there. So in `{% for m in x %}{{
/// s }}{% endfor %}{% set s = 1 %}` the loop sees no `s`, whatever the template was given.
void find_hidden_names(Root& root);

}  // namespace moerun::jinja
