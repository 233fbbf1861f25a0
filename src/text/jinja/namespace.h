#pragma once
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/runtime.h"

namespace moerun::jinja {

/// What `namespace()` makes: attributes that `set ns.name = value` changes. As Hugging Face's, it takes no
/// name that begins with an underscore. Lives until the rendering ends.
class Namespace : public Object {
 public:
  void set(Runtime& runtime, std::string_view name, Value value);
  std::string_view type_name() const override { return "TemplateNamespace"; }
  std::optional<Value> attribute(Runtime&, std::string_view name) override;
  void clear() override { values_ = {}; }

 private:
  Dict values_;
};

}  // namespace moerun::jinja
