#include "model/key_value_scales.h"

#include <fmt/format.h>

#include <cmath>
#include <initializer_list>

#include "model/tensor_spec.h"
#include "moerun/half.h"

namespace moerun {

namespace {

constexpr std::string_view kKeyWeight = ".k_proj.weight";

/// A scalar of the checkpoint by one of its spellings: its value, or 0 where there is none, with its name
/// among `out.names`.
float read_scale(const Checkpoint& checkpoint, std::initializer_list<std::string> spellings,
                 StoredKeyValueScales& out) {
  float scale = 0;
  const std::string* found = nullptr;
  for (const std::string& name : spellings) {
    const StoredTensor* const stored = checkpoint.find(name);
    if (!stored) continue;
    out.names.push_back(name);
    if (found)
      out.faults.push_back(fmt::format("{}: tensor {} is there as {} too", stored->file, *found, name));
    found = &name;
    const bool is_scalar = stored->shape.empty() || stored->shape == std::vector<int64_t>{1};
    if (!is_scalar || stored->dtype == DType::e4m3) {
      out.faults.push_back(fmt::format(
          "{}: tensor {} must be one number in bfloat16, float16 or float32: keys and values have "
          "one scale a layer",
          stored->file, name));
      continue;
    }
    scale = load_float(stored->data, stored->dtype, 0);
    if (!std::isfinite(scale) || scale <= 0)
      out.faults.push_back(fmt::format("{}: tensor {} has the scale {}: scales are finite and more than 0",
                                       stored->file, name, scale));
  }
  if (!found)
    out.faults.push_back(
        fmt::format("tensor {} is missing from the checkpoint, which has such scales "
                    "of other keys or values",
                    *spellings.begin()));
  return scale;
}

}  // namespace

StoredKeyValueScales find_key_value_scales(const ModelConfig& config, const Checkpoint& checkpoint) {
  StoredKeyValueScales out;
  out.of_layer.resize(static_cast<size_t>(config.num_hidden_layers));
  for (const TensorSpec& spec : tensors_of(config, config.dtype)) {
    if (spec.place.role != Role::k || !spec.drawn_as.ends_with(kKeyWeight)) continue;
    const std::string self = spec.drawn_as.substr(0, spec.drawn_as.size() - kKeyWeight.size());
    const auto read = [&](const char* name, const char* projection) {
      return read_scale(checkpoint, {self + name, self + ".attn" + name, self + projection + name}, out);
    };
    out.of_layer[static_cast<size_t>(spec.place.layer)] = {.key = read(".k_scale", ".k_proj"),
                                                           .value = read(".v_scale", ".v_proj")};
  }
  if (out.names.empty()) return {};
  return out;
}

}  // namespace moerun
