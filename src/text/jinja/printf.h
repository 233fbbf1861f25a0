#pragma once
#include <string>
#include <string_view>

#include "text/jinja/runtime.h"

namespace moerun::jinja {

/// Python's `format % values`: %s %r %a %d %i %u %x %X %o %e %E %f %F %g %G %c %%, with flags, width,
/// precision and
/// %(key)s.
Value percent_format(Runtime& runtime, const Value& format, const Value& values);

/// Python's format.format(...): fields by position, number or name, with .attributes and [items], !s !r, and
/// the format specifications of texts and numbers (https://docs.python.org/3/library/string.html#formatspec).
Value brace_format(Runtime& runtime, const Value& format, const Arguments& arguments);

}  // namespace moerun::jinja
