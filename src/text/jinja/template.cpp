#include "text/jinja/template.h"

#include "text/jinja/parser.h"
#include "text/unicode.h"

namespace moerun::jinja {

Root Template::parse_utf8(std::string_view source) {
  if (const auto at = find_invalid_utf8(source))
    throw TemplateError(fmt::format("byte {} of the template is no valid UTF-8", *at));
  return parse(source);
}

}  // namespace moerun::jinja
