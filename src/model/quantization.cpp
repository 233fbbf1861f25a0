#include "model/quantization.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "base/name_pattern.h"
#include "moerun/error.h"

namespace moerun {

using Json = nlohmann::json;

namespace {

constexpr int64_t kBlock = 128;
constexpr std::string_view kRead =
    "what is read: quant_method fp8 with weight_block_size [128, 128], and compressed-tensors "
    "float-quantized with a weight scale for each output channel or each block of 128 × 128; activations "
    "dynamic";
constexpr std::string_view kWeight = ".weight", kPattern = "re:";

/// Whether a matrix is a linear layer's that quantisation converts.
bool is_linear_layer(Role role) {
  switch (role) {
    case Role::q:
    case Role::k:
    case Role::v:
    case Role::output:
    case Role::gate:
    case Role::up:
    case Role::down:
    case Role::delta_q:
    case Role::delta_k:
    case Role::delta_v:
    case Role::delta_z:
    case Role::delta_b:
    case Role::delta_a:
      return true;
    default:
      return false;
  }
}

std::string_view module_of(const TensorSpec& spec) {
  return std::string_view(spec.drawn_as).substr(0, spec.drawn_as.size() - kWeight.size());
}

bool is_converted(const Quantization& quantization, std::string_view module) {
  const auto listed = [&](std::string_view part) { return quantization.not_converted.contains(part); };
  if (listed(module)) return false;
  for (size_t dot = module.find('.'); dot != std::string_view::npos; dot = module.find('.', dot + 1))
    if (listed(module.substr(0, dot)) || listed(module.substr(dot + 1))) return false;
  return true;
}

/// The modules that a list names; returns the regular expressions in it.
std::vector<std::string> read_modules(Fields& fields, const char* key, Quantization& out) {
  std::vector<std::string> patterns;
  const Json* const list = fields.find(key);
  if (!list) return patterns;
  if (!list->is_array() ||
      !std::all_of(list->begin(), list->end(), [](const Json& name) { return name.is_string(); })) {
    fields.fault(fmt::format("{} must be a list of names", key));
    return patterns;
  }
  for (const Json& entry : *list) {
    const auto name = entry.get<std::string>();
    if (name.starts_with(kPattern))
      patterns.push_back(name.substr(kPattern.size()));
    else
      out.not_converted.insert(name);
  }
  return patterns;
}

/// One of several values of a field.
void expect_one_of(Fields& fields, const char* key, const std::vector<Json>& values) {
  const Json* const field = fields.find(key);
  if (field && std::find(values.begin(), values.end(), *field) == values.end())
    fields.fault(fmt::format("{} is {}; {}", key, shown(*field), kRead));
}

void require_value(Fields& fields, const char* key, const Json& only) {
  const Json* const field = fields.find(key);
  if (!field || *field != only)
    fields.fault(fmt::format("{} is {}; {}", key, field ? shown(*field) : "missing", kRead));
}

std::vector<std::string> read_fp8(Fields& fields, Quantization& out) {
  expect_one_of(fields, "fmt", {"e4m3", "float8_e4m3fn"});
  expect_one_of(fields, "scale_fmt", {"float"});
  require_value(fields, "activation_scheme", "dynamic");
  require_value(fields, "weight_block_size", Json::array({kBlock, kBlock}));
  fields.expect("dequantize", false, "weights are computed with as they are stored");
  out.scales = ".weight_scale_inv";
  out.block_rows = out.block_cols = kBlock;
  std::vector<std::string> patterns = read_modules(fields, "modules_to_not_convert", out);
  const std::vector<std::string> others = read_modules(fields, "ignored_layers", out);
  patterns.insert(patterns.end(), others.begin(), others.end());
  fields.refuse_unknown({});
  return patterns;
}

/// `weights` or `input_activations` of a group: what is the same in both.
void expect_e4m3(Fields& fields) {
  require_value(fields, "num_bits", 8);
  require_value(fields, "type", "float");
  fields.expect("symmetric", true, kRead);
  fields.expect("actorder", nullptr, kRead);
  fields.refuse_unknown({"observer", "observer_kwargs", "scale_dtype", "zp_dtype"});
}

void read_group(Fields& group, Quantization& out) {
  require_value(group, "targets", Json::array({"Linear"}));
  group.expect("format", "float-quantized", kRead);
  group.expect("output_activations", nullptr, kRead);
  const Json* const weights = group.find("weights");
  const Json* const inputs = group.find("input_activations");
  if (!weights || !weights->is_object() || !inputs || !inputs->is_object())
    return group.fault(fmt::format("weights and input_activations must both be quantised; {}", kRead));
  Fields w = group.inner("weights", *weights), x = group.inner("input_activations", *inputs);
  w.expect("dynamic", false, kRead);
  w.expect("group_size", nullptr, kRead);
  expect_one_of(w, "strategy", {"channel", "block"});
  const Json* const strategy = w.find("strategy");
  out.block_rows = strategy && *strategy == "block" ? kBlock : 1;
  out.block_cols = strategy && *strategy == "block" ? kBlock : 0;
  if (out.block_cols > 0)
    require_value(w, "block_structure", Json::array({kBlock, kBlock}));
  else
    w.expect("block_structure", nullptr, kRead);
  require_value(x, "dynamic", true);
  expect_one_of(x, "strategy", {"token", "group"});
  x.expect("group_size", kBlock, kRead);
  x.expect("block_structure", nullptr, kRead);
  expect_e4m3(w);
  expect_e4m3(x);
  group.refuse_unknown({});
}

/// One scale a layer for keys and one for values, which the checkpoint brings (key_value_scales.h).
void read_key_value_scheme(Fields& fields) {
  const Json* const scheme = fields.find("kv_cache_scheme");
  if (!scheme || scheme->is_null()) return;
  if (!scheme->is_object())
    return fields.fault("kv_cache_scheme must be null or say how keys and values are quantised");
  Fields inner = fields.inner("kv_cache_scheme", *scheme);
  constexpr const char* kOneScale = "keys and values have one scale a layer, known beforehand";
  inner.expect("dynamic", false, kOneScale);
  inner.expect("strategy", "tensor", kOneScale);
  inner.expect("group_size", nullptr, kOneScale);
  inner.expect("block_structure", nullptr, kOneScale);
  expect_e4m3(inner);
}

std::vector<std::string> read_compressed(Fields& fields, Quantization& out) {
  require_value(fields, "format", "float-quantized");
  out.scales = ".weight_scale";
  const Json* const groups = fields.find("config_groups");
  if (!groups || !groups->is_object() || groups->size() != 1 || !groups->begin()->is_object()) {
    fields.fault(fmt::format("config_groups must have one group; {}", kRead));
  } else {
    Fields group = fields.inner("config_groups", *groups->begin());
    read_group(group, out);
  }
  read_key_value_scheme(fields);
  for (const char* const none : {"sparsity_config", "transform_config"})
    fields.expect(none, Json::object(), kRead);
  std::vector<std::string> patterns = read_modules(fields, "ignore", out);
  fields.refuse_unknown({"global_compression_ratio", "quantization_status", "version"});
  return patterns;
}

/// What matrices that are one on the device have in common.
std::tuple<int64_t, int32_t, Role> fused_as(const Place& place) {
  const int32_t expert = std::min(place.expert, 0);  // all routed experts together
  switch (place.role) {
    case Role::k:
    case Role::v:
      return {place.layer, expert, Role::q};
    case Role::up:
      return {place.layer, expert, Role::gate};
    case Role::delta_k:
    case Role::delta_v:
    case Role::delta_z:
      return {place.layer, expert, Role::delta_q};
    case Role::delta_a:
      return {place.layer, expert, Role::delta_b};
    default:
      return {place.layer, expert, place.role};
  }
}

}  // namespace

std::vector<std::string> read_quantization(Fields& fields, Quantization& quantization) {
  const Json* const older = fields.find("compression_config");
  const Json* const json = fields.find("quantization_config");
  if (json && older)
    fields.fault("quantization_config and compression_config are both given; one of them must go");
  const char* const key = json ? "quantization_config" : "compression_config";
  const Json* const found = json ? json : older;
  if (!found || (json && older)) return {};
  std::string method;
  if (!found->is_object()) {
    fields.fault(fmt::format("{} is no object", key));
    return {};
  }
  Fields inner = fields.inner(key, *found);
  inner.read("quant_method", method);
  if (method == "fp8") return read_fp8(inner, quantization);
  if (method == "compressed-tensors") return read_compressed(inner, quantization);
  inner.fault(fmt::format("quant_method {} is not supported; {}", method.empty() ? "none" : method, kRead));
  return {};
}

void settle_quantization(const std::vector<std::string>& patterns, ModelConfig& config, Fields& fields) {
  Quantization& quantization = config.quantization;
  if (!quantization.is_fp8()) return;
  if (patterns.size() > config_limits::kModulePatterns)
    return fields.fault(fmt::format("quantization_config: {} patterns of modules, and at most {} are read",
                                    patterns.size(), config_limits::kModulePatterns));
  const std::vector<TensorSpec> tensors = tensors_of(config, config.dtype);
  for (const std::string& pattern : patterns) {
    try {
      const NamePattern matches(pattern);
      for (const TensorSpec& spec : tensors)
        if (is_linear_layer(spec.place.role) && matches(module_of(spec)))
          quantization.not_converted.emplace(module_of(spec));
    } catch (const BadInput& fault) {
      fields.fault(fmt::format("quantization_config: ignore: {}{}: {}", kPattern, pattern, fault.what()));
    }
  }
  std::map<std::tuple<int64_t, int32_t, Role>, TensorSpec> first;
  for (const TensorSpec& spec : tensors_of(config, config.dtype)) {
    if (!is_linear_layer(spec.place.role)) continue;
    const TensorSpec& other = first.emplace(fused_as(spec.place), spec).first->second;
    if (other.format.is_fp8() == spec.format.is_fp8()) continue;
    const bool first_is = other.format.is_fp8();
    return fields.fault(
        fmt::format("quantization_config: {} is converted and {} is not: they are computed as one matrix, so "
                    "the list of modules that are not converted must have both of them or none",
                    module_of(first_is ? other : spec), module_of(first_is ? spec : other)));
  }
}

void quantise(const Quantization& quantization, TensorSpec& spec) {
  if (!quantization.is_fp8() || !is_linear_layer(spec.place.role)) return;
  if (!is_converted(quantization, module_of(spec))) return;
  const auto count = [](int64_t size, int64_t block) { return (size + block - 1) / block; };
  spec.format.dtype = DType::e4m3;
  spec.scales = {
      .name = std::string(module_of(spec)) + quantization.scales,
      .block_rows = quantization.block_rows,
      .block_cols = quantization.block_cols > 0 ? quantization.block_cols : scale_groups(spec.cols) * kBlock};
  spec.scales.shape = {count(spec.rows, spec.scales.block_rows), count(spec.cols, spec.scales.block_cols)};
}

}  // namespace moerun
