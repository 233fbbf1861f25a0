#include "model/families.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

namespace moerun {

namespace {

constexpr std::array kFamilies{&families::qwen3_moe,       &families::mixtral,    &families::qwen2_moe,
                               &families::olmoe,           &families::glm4_moe,   &families::minimax_m2,
                               &families::ernie4_5_moe,    &families::qwen3_next, &families::qwen3_5_moe,
                               &families::qwen3_5_moe_text};

constexpr std::string_view kHowToAdd = "CONTRIBUTING.md says how to add a family";

template <typename Matches>
const Family* first(Matches matches) {
  const auto* const at = std::find_if(kFamilies.begin(), kFamilies.end(), matches);
  return at == kFamilies.end() ? nullptr : *at;
}

std::string known(std::string_view Family::*name) {
  std::vector<std::string_view> names;
  names.reserve(kFamilies.size());
  for (const Family* const family : kFamilies) names.push_back(family->*name);
  return fmt::format("{} {}", fmt::join(names, ", "), names.size() == 1 ? "is" : "are");
}

}  // namespace

const Family* find_family(Fields& fields) {
  const nlohmann::json* const names = fields.find("architectures");
  std::string type;
  fields.read("model_type", type);
  if (!names) {
    const Family* const found = first([&](const Family* family) { return family->model_type == type; });
    if (!found)
      fields.fault(type.empty() ? std::string("architectures is missing")
                                : fmt::format("model_type {} is not supported; {}; {}", type,
                                              known(&Family::model_type), kHowToAdd));
    return found;
  }
  const Family* const found = first([&](const Family* family) {
    return *names == nlohmann::json::array({std::string(family->architecture)});
  });
  if (!found) {
    fields.fault(fmt::format("architectures {} are not supported; {}; {}", shown(*names),
                             known(&Family::architecture), kHowToAdd));
    return nullptr;
  }
  if (!type.empty() && type != found->model_type && type != found->other_model_type)
    fields.fault(fmt::format("model_type {} is not that of {}, which is {}", type, found->architecture,
                             found->model_type));
  return found;
}

}  // namespace moerun
