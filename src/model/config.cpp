#include "model/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "moerun/error.h"
#include "text/checksum.h"

namespace moerun {

namespace {

using Json = nlohmann::json;

/// Fields that say nothing about the arithmetic of a forward pass without dropout or training.
const std::set<std::string>& harmless_fields() {
  static const std::set<std::string> fields{"_name_or_path",
                                            "architectures",
                                            "attention_dropout",
                                            "bos_token_id",
                                            "chunk_size_feed_forward",
                                            "id2label",
                                            "initializer_range",
                                            "label2id",
                                            "layer_types",
                                            "max_window_layers",
                                            "model_type",
                                            "output_attentions",
                                            "output_hidden_states",
                                            "output_router_logits",
                                            "pad_token_id",
                                            "problem_type",
                                            "return_dict",
                                            "router_aux_loss_coef",
                                            "sliding_window",
                                            "transformers_version",
                                            "use_cache"};
  return fields;
}

/// Takes fields out of a JSON object one by one; what is left at the end was not understood.
class Fields {
 public:
  Fields(const Json& json, std::string name, std::vector<std::string>& faults)
      : json_(json), name_(std::move(name)), faults_(faults) {}

  /// The field, or null when it is absent or null.
  const Json* find(const std::string& key) {
    known_.insert(key);
    const auto at = json_.find(key);
    return at == json_.end() || at->is_null() ? nullptr : &*at;
  }

  template <typename T>
  bool read(const std::string& key, T& value) {
    const Json* const field = find(key);
    if (!field) return false;
    const bool fits = std::is_same_v<T, bool>          ? field->is_boolean()
                      : std::is_same_v<T, std::string> ? field->is_string()
                      : std::is_floating_point_v<T>    ? field->is_number()
                      : std::is_same_v<T, int64_t>     ? field->is_number_integer()
                                                       : field->is_array();
    if (!fits) {
      fault(fmt::format("{} has the wrong type: {}", key, field->dump()));
      return true;
    }
    if constexpr (std::is_same_v<T, std::vector<int64_t>>) {
      for (const Json& entry : *field)
        if (!entry.is_number_integer()) {
          fault(fmt::format("{} must hold integers", key));
          return true;
        }
    }
    value = field->get<T>();
    return true;
  }

  void require(const std::string& key, int64_t& value, int64_t least = 1) {
    if (!read(key, value))
      fault(fmt::format("{} is missing", key));
    else if (value < least)
      fault(fmt::format("{} is {}, and must be at least {}", key, value, least));
  }

  void fault(const std::string& text) { faults_.push_back(fmt::format("{}: {}", name_, text)); }

  void refuse_unknown(const std::set<std::string>& harmless) {
    for (const auto& [key, value] : json_.items())
      if (!known_.contains(key) && !harmless.contains(key))
        fault(fmt::format("field {} ({}) is not understood, and might change the answers", key,
                          value.dump().substr(0, 60)));
  }

 private:
  const Json& json_;
  std::string name_;
  std::vector<std::string>& faults_;
  std::set<std::string> known_;
};

DType dtype_named(const std::string& name, Fields& fields) {
  if (name == "bfloat16") return DType::bfloat16;
  if (name == "float16") return DType::float16;
  if (name == "float32") return DType::float32;
  fields.fault(fmt::format("dtype {} is not one of bfloat16, float16, float32", name));
  return DType::bfloat16;
}

/// `rope_scaling` beside `rope_theta`, or `rope_parameters` that has both.
void read_rope(Fields& fields, const std::string& name, std::vector<std::string>& faults,
               ModelConfig& config) {
  RopeConfig& rope = config.rope;
  fields.read("rope_theta", rope.theta);
  const Json* parameters = fields.find("rope_parameters");
  const Json* const scaling = fields.find("rope_scaling");
  const std::string key = parameters ? "rope_parameters" : "rope_scaling";
  if (parameters && scaling)
    return fields.fault("rope_parameters and rope_scaling are both given; one of them must go");
  if (!parameters) parameters = scaling;
  if (!parameters) return;
  if (!parameters->is_object()) return fields.fault(fmt::format("{} is no object", key));

  Fields inner(*parameters, fmt::format("{}: {}", name, key), faults);
  inner.read("rope_theta", rope.theta);
  std::string type = "default", old_type;
  const bool named = inner.read("rope_type", type);
  if (inner.read("type", old_type) && !named) type = old_type;
  if (type == "default") {
    rope.type = RopeConfig::Type::standard;
  } else if (type == "linear") {
    rope.type = RopeConfig::Type::linear;
  } else if (type == "yarn") {
    rope.type = RopeConfig::Type::yarn;
  } else {
    inner.fault(fmt::format("rope_type {} is not one of default, linear, yarn", type));
  }
  if (rope.type != RopeConfig::Type::standard && !inner.read("factor", rope.factor))
    inner.fault("factor is missing");
  if (rope.factor < 1) inner.fault(fmt::format("factor is {}, and must be at least 1", rope.factor));
  if (rope.type == RopeConfig::Type::yarn) {
    inner.read("attention_factor", rope.attention_factor);
    inner.read("beta_fast", rope.beta_fast);
    inner.read("beta_slow", rope.beta_slow);
    inner.read("mscale", rope.mscale);
    inner.read("mscale_all_dim", rope.mscale_all_dim);
    inner.read("truncate", rope.truncate);
    inner.read("original_max_position_embeddings", rope.original_max_position_embeddings);
  }
  inner.refuse_unknown({"original_max_position_embeddings", "partial_rotary_factor"});
  double partial = 1;
  inner.read("partial_rotary_factor", partial);
  if (partial != 1) inner.fault("partial_rotary_factor other than 1 is not supported");
}

/// What the model class could do and this program does not.
void refuse_unsupported(Fields& fields, const Json& json) {
  std::string text;
  if (fields.read("model_type", text) && text != "qwen3_moe")
    fields.fault(fmt::format("model_type {} is not supported; qwen3_moe is", text));
  if (const Json* const names = fields.find("architectures");
      names && *names != Json::array({"Qwen3MoeForCausalLM"}))
    fields.fault(fmt::format("architectures {} are not supported; Qwen3MoeForCausalLM is", names->dump()));
  text = "silu";
  if (fields.read("hidden_act", text) && text != "silu")
    fields.fault(fmt::format("hidden_act {} is not supported; silu is", text));
  bool window = false;
  if (fields.read("use_sliding_window", window) && window)
    fields.fault("use_sliding_window is true, and sliding-window attention is not supported");
  if (const Json* const types = fields.find("layer_types")) {
    if (!types->is_array()) fields.fault(fmt::format("layer_types is {}, and must be a list", types->dump()));
    const auto other =
        std::find_if(types->begin(), types->end(), [](const Json& type) { return type != "full_attention"; });
    if (types->is_array() && other != types->end())
      fields.fault(fmt::format("layer_types has {}, and full_attention alone is supported", other->dump()));
  }
  if (json.contains("quantization_config"))
    fields.fault("quantization_config: quantised checkpoints are not supported");
  fields.find("quantization_config");
}

std::vector<int32_t> eos_ids(const Json& json, const std::string& name, std::vector<std::string>& faults) {
  std::vector<int32_t> ids;
  const auto at = json.find("eos_token_id");
  if (at == json.end() || at->is_null()) return ids;
  for (const Json& id : at->is_array() ? *at : Json::array({*at})) {
    if (id.is_number_integer())
      ids.push_back(id.get<int32_t>());
    else
      faults.push_back(fmt::format("{}: eos_token_id {} is no token id", name, at->dump()));
  }
  return ids;
}

void check_shape(const ModelConfig& config, Fields& fields) {
  if (config.num_attention_heads % config.num_key_value_heads != 0)
    fields.fault(fmt::format("num_attention_heads {} is no multiple of num_key_value_heads {}",
                             config.num_attention_heads, config.num_key_value_heads));
  if (config.head_dim % 2 != 0) fields.fault(fmt::format("head_dim {} is odd", config.head_dim));
  if (config.num_experts > 0 && config.num_experts_per_tok > config.num_experts)
    fields.fault(fmt::format("num_experts_per_tok {} is more than num_experts {}", config.num_experts_per_tok,
                             config.num_experts));
  for (const int64_t layer : config.mlp_only_layers)
    if (layer < 0 || layer >= config.num_hidden_layers)
      fields.fault(fmt::format("mlp_only_layers names layer {} of {}", layer, config.num_hidden_layers));
}

Json parse_object(const std::string& text, const std::string& name) {
  Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded() || !json.is_object()) throw BadInput(fmt::format("{}: is no JSON object", name));
  return json;
}

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return file ? text.str() : std::string();
}

}  // namespace

ModelConfig parse_model_config(const std::string& text, const std::string& generation,
                               const std::string& name) {
  const Json json = parse_object(text, name);
  std::vector<std::string> faults;
  Fields fields(json, name, faults);
  ModelConfig config;
  config.checksum = sha256_hex(text);

  refuse_unsupported(fields, json);
  fields.require("vocab_size", config.vocab_size);
  fields.require("hidden_size", config.hidden_size);
  fields.require("num_hidden_layers", config.num_hidden_layers);
  fields.require("num_attention_heads", config.num_attention_heads);
  if (!fields.read("num_key_value_heads", config.num_key_value_heads))
    config.num_key_value_heads = config.num_attention_heads;
  if (!fields.read("head_dim", config.head_dim) && config.num_attention_heads > 0)
    config.head_dim = config.hidden_size / config.num_attention_heads;
  fields.require("num_experts", config.num_experts, 0);
  fields.require("num_experts_per_tok", config.num_experts_per_tok);
  fields.require("moe_intermediate_size", config.moe_intermediate_size);
  fields.require("intermediate_size", config.intermediate_size);
  fields.require("max_position_embeddings", config.max_position_embeddings);
  if (fields.read("decoder_sparse_step", config.decoder_sparse_step) && config.decoder_sparse_step < 1)
    fields.fault("decoder_sparse_step must be at least 1");
  fields.read("mlp_only_layers", config.mlp_only_layers);
  fields.read("rms_norm_eps", config.rms_norm_eps);
  fields.read("norm_topk_prob", config.norm_topk_prob);
  fields.read("attention_bias", config.attention_bias);
  fields.read("tie_word_embeddings", config.tie_word_embeddings);
  std::string dtype;
  const bool has_dtype = fields.read("dtype", dtype);
  std::string torch_dtype;
  if (fields.read("torch_dtype", torch_dtype) && !has_dtype) dtype = torch_dtype;
  if (!dtype.empty()) config.dtype = dtype_named(dtype, fields);
  read_rope(fields, name, faults, config);
  fields.find("eos_token_id");
  fields.refuse_unknown(harmless_fields());

  config.eos_token_ids = eos_ids(json, name, faults);
  if (!generation.empty()) {
    const std::string generation_name = "generation_config.json";
    const auto ids = eos_ids(parse_object(generation, generation_name), generation_name, faults);
    if (!ids.empty()) config.eos_token_ids = ids;
  }
  for (const int32_t id : config.eos_token_ids)
    if (id < 0 || id >= config.vocab_size)
      fields.fault(
          fmt::format("eos_token_id {} (of {} or generation_config.json) is outside of the vocabulary of {}",
                      id, name, config.vocab_size));
  if (faults.empty()) check_shape(config, fields);
  if (!faults.empty()) throw BadInput(fmt::format("{}", fmt::join(faults, "\n")));
  return config;
}

ModelConfig read_model_config(const std::string& model_dir) {
  const std::string path = model_dir + "/config.json";
  const std::string text = read_text(path);
  if (text.empty())
    throw BadInput(fmt::format("{}: cannot be read; model.path must be a Hugging Face model folder", path));
  return parse_model_config(text, read_text(model_dir + "/generation_config.json"), path);
}

}  // namespace moerun
