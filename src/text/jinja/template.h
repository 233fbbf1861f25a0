#pragma once
#include <string>
#include <string_view>

#include "text/jinja/ast.h"
#include "text/jinja/evaluator.h"

namespace moerun::jinja {

/// A Jinja template as Hugging Face compiles chat templates: jinja2's ImmutableSandboxedEnvironment with
/// trim_blocks and lstrip_blocks, loop controls, `generation`, and transformers' own tojson, raise_exception,
/// strftime_now, namespace and dict. It reads no file and calls nothing of the program's; limits.h bounds it.
/// Immutable: any thread may render.
class Template {
 public:
  /// Throws TemplateError: what is wrong with the text, with its line.
  explicit Template(std::string_view source) : root_(parse_utf8(source)) {}

  /// The text with `variables`, which `runtime` made. Throws TemplateError.
  std::string render(Runtime& runtime, const Variables& variables) const {
    return Evaluator(runtime, variables).run(root_);
  }

 private:
  static Root parse_utf8(std::string_view source);
  Root root_;
};

}  // namespace moerun::jinja
