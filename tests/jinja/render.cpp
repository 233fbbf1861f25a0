// For each line {"template", "variables": "JSON", "now"} of stdin a line {"text"} or {"error", "kind"}: the
// interpreter alone, for tests that compare it or try to break it.
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "text/jinja/json.h"
#include "text/jinja/template.h"

using namespace moerun::jinja;
using nlohmann::json;

namespace {

json answer(const json& line) {
  try {
    const Template parsed(line["template"].get_ref<const std::string&>());
    Runtime runtime(line["now"]);
    Variables variables;
    const Value given = from_json(runtime, line["variables"].get_ref<const std::string&>());
    for (const auto& [name, value] : given.dict()->entries()) variables[name.string()->text] = value;
    return {{"text", parsed.render(runtime, variables)}};
  } catch (const TemplateError& error) {
    return {{"error", error.what()}, {"kind", static_cast<int>(error.kind())}};
  }
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);)
    std::cout << answer(json::parse(line)).dump(-1, ' ', false, json::error_handler_t::replace) << '\n';
}
