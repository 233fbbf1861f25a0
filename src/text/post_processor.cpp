#include "text/post_processor.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace moerun {
namespace {

using nlohmann::json;

const json& member(const json& object, const char* key) {
  static const json null;
  if (!object.is_object()) return null;
  const auto it = object.find(key);
  return it == object.end() ? null : *it;
}

AroundText read_sequence(const Component& component) {
  component.known_keys({"processors"});
  AroundText all;
  for (const Component& one : component.list("processors")) {
    const AroundText around = read_post_processor(one);
    all.before.insert(all.before.begin(), around.before.begin(), around.before.end());
    all.after.insert(all.after.end(), around.after.begin(), around.after.end());
  }
  return all;
}

AroundText read_byte_level(const Component& component) {
  component.known_keys({"add_prefix_space", "trim_offsets", "use_regex"});
  return {};
}

/// Of `single`, what stands before and behind the text; `pair` is for two texts, which nothing here gives.
AroundText read_template(const Component& component) {
  component.known_keys({"single", "pair", "special_tokens"});
  AroundText around;
  std::vector<int32_t>* side = &around.before;
  if (!component.member("single").is_array()) component.fail("has no list 'single'");
  for (const json& piece : component.member("single")) {
    if (const json& sequence = member(piece, "Sequence"); !sequence.is_null()) {
      if (member(sequence, "id") != "A" || side == &around.after)
        component.fail("has a 'single' that is not of one text");
      side = &around.after;
      continue;
    }
    const json& name = member(member(piece, "SpecialToken"), "id");
    const json& ids =
        name.is_string()
            ? member(member(component.member("special_tokens"), name.get_ref<const std::string&>().c_str()),
                     "ids")
            : json();
    if (!ids.is_array()) component.fail("has a part of 'single' without ids in special_tokens");
    for (const json& id : ids) {
      if (!id.is_number_integer() || id < 0 || id > INT32_MAX)
        component.fail("has a special token with an id that is none");
      side->push_back(id);
    }
  }
  if (side == &around.before) component.fail("has a 'single' without the text");
  return around;
}

constexpr ComponentReader<AroundText> kReaders[] = {
    {"Sequence", read_sequence}, {"ByteLevel", read_byte_level}, {"TemplateProcessing", read_template}};

}  // namespace

AroundText read_post_processor(const Component& component) {
  if (component.absent()) return {};
  return read_by_type(kReaders, component);
}

}  // namespace moerun
