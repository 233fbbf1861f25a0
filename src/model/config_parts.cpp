#include "model/config_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "model/rope.h"

namespace moerun {

using Json = nlohmann::json;

namespace {

DType read_dtype(Fields& fields) {
  std::string name, older;
  const bool has_name = fields.read("dtype", name);
  if (fields.read("torch_dtype", older) && !has_name) name = older;
  if (name == "float16") return DType::float16;
  if (name == "float32") return DType::float32;
  if (!name.empty() && name != "bfloat16")
    fields.fault(fmt::format("dtype {} is not one of bfloat16, float16, float32", name));
  return DType::bfloat16;
}

void at_least(Fields& fields, const char* key, double& value, double least) {
  double read = value;
  if (!fields.read(key, read)) return;
  if (std::isfinite(read) && read >= least)
    value = read;
  else
    fields.fault(fmt::format("{} is {}, and must be at least {}", key, read, least));
}

void above_zero(Fields& fields, const char* key, double& value) {
  double read = value;
  if (!fields.read(key, read)) return;
  if (std::isfinite(read) && read > 0)
    value = read;
  else
    fields.fault(fmt::format("{} is {}, and must be more than 0", key, read));
}

void read_yarn(Fields& fields, RopeConfig& rope) {
  at_least(fields, "attention_factor", rope.attention_factor, 0);
  above_zero(fields, "beta_fast", rope.beta_fast);
  above_zero(fields, "beta_slow", rope.beta_slow);
  at_least(fields, "mscale", rope.mscale, 0);
  at_least(fields, "mscale_all_dim", rope.mscale_all_dim, 0);
  fields.read("truncate", rope.truncate);
}

}  // namespace

void read_rope(Fields& fields, const DecoderDefaults& defaults, RopeConfig& rope) {
  rope.theta = defaults.rope_theta;
  if (defaults.partial_rotary) {
    rope.partial = *defaults.partial_rotary;
    fields.read("partial_rotary_factor", rope.partial);
  }
  above_zero(fields, "rope_theta", rope.theta);
  const Json* parameters = fields.find("rope_parameters");
  const Json* const scaling = fields.find("rope_scaling");
  const std::string key = parameters ? "rope_parameters" : "rope_scaling";
  if (parameters && scaling)
    return fields.fault("rope_parameters and rope_scaling are both given; one of them must go");
  if (!parameters) parameters = scaling;
  if (!parameters) return;
  if (!parameters->is_object()) return fields.fault(fmt::format("{} is no object", key));

  Fields inner = fields.inner(key, *parameters);
  above_zero(inner, "rope_theta", rope.theta);
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
  if (rope.type != RopeConfig::Type::standard) {
    if (!inner.find("factor")) inner.fault("factor is missing");
    at_least(inner, "factor", rope.factor, 1);
    if (rope.factor > config_limits::kPositions) inner.fault(fmt::format("factor is {}", rope.factor));
  }
  int64_t original = 0;
  inner.read("original_max_position_embeddings", original, 1, config_limits::kPositions);
  if (rope.type == RopeConfig::Type::yarn) {
    rope.original_max_position_embeddings = original;
    read_yarn(inner, rope);
  }
  if (defaults.partial_rotary)
    inner.read("partial_rotary_factor", rope.partial);
  else
    inner.expect("partial_rotary_factor", 1.0, "heads of this family are rotated whole");
  if (defaults.rotary_sections)
    for (const char* const of_images : {"mrope_section", "mrope_interleaved"}) inner.find(of_images);
  inner.refuse_unknown({});
}

void read_decoder(Fields& fields, const DecoderDefaults& defaults, ModelConfig& config) {
  namespace most = config_limits;
  fields.require("vocab_size", config.vocab_size, 1, most::kVocabulary);
  fields.require("hidden_size", config.hidden_size, 1, most::kHidden);
  fields.require("num_hidden_layers", config.num_hidden_layers, 1, most::kLayers);
  fields.require("num_attention_heads", config.num_attention_heads, 1, most::kHeads);
  if (!fields.read("num_key_value_heads", config.num_key_value_heads, 1, most::kHeads))
    config.num_key_value_heads = config.num_attention_heads;
  if (!fields.read("head_dim", config.head_dim, 1, most::kHeadDim) && config.num_attention_heads > 0)
    config.head_dim = config.hidden_size / config.num_attention_heads;
  fields.require("max_position_embeddings", config.max_position_embeddings, 1, most::kPositions);
  config.rms_norm_eps = defaults.rms_norm_eps;
  at_least(fields, "rms_norm_eps", config.rms_norm_eps, 0);
  config.tie_word_embeddings = defaults.tie_word_embeddings;
  fields.read("tie_word_embeddings", config.tie_word_embeddings);
  config.dtype = read_dtype(fields);
  read_rope(fields, defaults, config.rope);
}

void read_text_config(Fields& fields, ModelConfig& config,
                      void (*read)(Fields& fields, ModelConfig& config)) {
  for (const char* const of_images :
       {"vision_config", "image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"})
    fields.find(of_images);
  const Json* const text = fields.find("text_config");
  if (!text || !text->is_object())
    return fields.fault(fmt::format("text_config is {}", text ? "no object" : "missing"));
  Fields inner = fields.inner("text_config", *text);
  read(inner, config);
  refuse_unsupported(inner);
  config.eos_token_ids = read_eos_ids(inner);
  inner.refuse_unknown(harmless_fields());
  if (fields.find("dtype") || fields.find("torch_dtype")) config.dtype = read_dtype(fields);
  bool tied = config.tie_word_embeddings;
  fields.read("tie_word_embeddings", tied);
  if (tied != config.tie_word_embeddings && inner.find("tie_word_embeddings"))
    fields.fault(fmt::format("tie_word_embeddings is {}, and text_config says otherwise", tied));
  config.tie_word_embeddings = tied;
}

void require_fields(Fields& fields, std::initializer_list<const char*> keys) {
  for (const char* const key : keys)
    if (!fields.find(key)) fields.fault(fmt::format("{} is missing", key));
}

void read_alias(Fields& fields, const char* key, const char* other_key, Within within, int64_t& value) {
  const Json* const one = fields.find(key);
  const Json* const other = fields.find(other_key);
  if (one && other && *one != *other)
    fields.fault(fmt::format("{} is {} and {} is {}; one of them must go", key, shown(*one), other_key,
                             shown(*other)));
  fields.require(other && !one ? other_key : key, value, within.least, within.most);
}

void read_num_experts(Fields& fields, int64_t least, ModelConfig& config) {
  read_alias(fields, "num_experts", "num_local_experts", {least, config_limits::kExperts},
             config.num_experts);
}

void read_experts_per_token(Fields& fields, ModelConfig& config) {
  fields.require("num_experts_per_tok", config.num_experts_per_tok, 1, config_limits::kExperts);
}

void read_shared_expert(Fields& fields, ModelConfig& config) {
  fields.require("shared_expert_intermediate_size", config.shared_intermediate_size, 1,
                 config_limits::kHidden);
  config.shared_expert_gate = true;
}

void read_sparse_layers(Fields& fields, ModelConfig& config) {
  int64_t step = 1;
  std::vector<int64_t> dense;
  fields.read("decoder_sparse_step", step, 1, config_limits::kLayers);
  fields.read("mlp_only_layers", dense);
  for (const int64_t layer : dense)
    if (layer < 0 || layer >= config.num_hidden_layers)
      fields.fault(fmt::format("mlp_only_layers names layer {} of {}", layer, config.num_hidden_layers));
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer)
    config.sparse.push_back(config.num_experts > 0 && (layer + 1) % step == 0 &&
                            std::find(dense.begin(), dense.end(), layer) == dense.end());
}

void read_window(Fields& fields, const ModelConfig& config) {
  int64_t window = 0;
  if (!fields.read("sliding_window", window, 1, INT64_MAX) || window >= most_positions(config)) return;
  fields.fault(
      fmt::format("sliding_window is {}, less than the model's {} positions, and sliding-window attention is "
                  "not supported",
                  window, most_positions(config)));
}

void pass_over_layers(int64_t count, ModelConfig& config) {
  for (int64_t i = 0; i < count; ++i)
    config.passed_over.push_back(
        {fmt::format("model.layers.{}.", config.num_hidden_layers + i), "a layer of multi-token prediction"});
}

void refuse_unsupported(Fields& fields) {
  fields.expect("hidden_act", "silu", "silu alone is supported");
  if (const Json* const types = fields.asked_for("layer_types") ? nullptr : fields.find("layer_types")) {
    if (!types->is_array())
      return fields.fault(fmt::format("layer_types is {}, and must be a list", shown(*types)));
    const auto other =
        std::find_if(types->begin(), types->end(), [](const Json& type) { return type != "full_attention"; });
    if (other != types->end())
      fields.fault(fmt::format("layer_types has {}, and full_attention alone is supported", shown(*other)));
  }
  // Fields of other families, of trainers and of transformers' base class, at the values that change nothing.
  const auto expect = [&](const char* key, const Json& only,
                          const char* why = "other values are not supported") {
    if (!fields.asked_for(key)) fields.expect(key, only, why);
  };
  expect("partial_rotary_factor", 1.0);
  expect("pretraining_tp", 1);
  expect("mlp_bias", false);
  expect("is_encoder_decoder", false);
  expect("add_cross_attention", false);
  expect("use_bidirectional_attention", false);
  expect("is_causal", true);
  expect("pruned_heads", Json::object());
  const char* const no_shared = "shared experts are not supported in this family";
  for (const char* const key : {"shared_expert_intermediate_size", "n_shared_experts",
                                "moe_num_shared_experts", "shared_intermediate_size"})
    expect(key, 0, no_shared);
}

std::vector<int32_t> read_eos_ids(Fields& fields) {
  std::vector<int32_t> ids;
  const Json* const field = fields.find("eos_token_id");
  if (!field) return ids;
  const Json one = Json::array({*field});
  const Json& list = field->is_array() ? *field : one;
  if (list.size() > config_limits::kEndTokens) {
    fields.fault(fmt::format("eos_token_id has {} ids, and at most {} are read", list.size(),
                             config_limits::kEndTokens));
    return ids;
  }
  for (const Json& id : list) {
    int64_t number = 0;
    if (!integer_within(id, 0, INT32_MAX, number)) {
      fields.fault(fmt::format("eos_token_id {} is no token id", shown(id)));
      continue;
    }
    ids.push_back(static_cast<int32_t>(number));
  }
  return ids;
}

void check_shape(const ModelConfig& config, Fields& fields) {
  if (config.head_dim < 1)
    return fields.fault(
        fmt::format("head_dim is absent, and hidden_size {} is less than num_attention_heads {}",
                    config.hidden_size, config.num_attention_heads));
  if (config.num_attention_heads % config.num_key_value_heads != 0)
    fields.fault(fmt::format("num_attention_heads {} is no multiple of num_key_value_heads {}",
                             config.num_attention_heads, config.num_key_value_heads));
  if (config.head_dim % 2 != 0) fields.fault(fmt::format("head_dim {} is odd", config.head_dim));
  if (const int64_t rotated = config.rotary_dim();
      rotated < 2 || rotated % 2 != 0 || rotated > config.head_dim)
    fields.fault(
        fmt::format("partial_rotary_factor {} of head_dim {} is {} elements, which must be an even "
                    "number of a head's",
                    config.rope.partial, config.head_dim, rotated));
  if (config.num_experts > 0 && config.num_experts_per_tok > config.num_experts)
    fields.fault(fmt::format("num_experts_per_tok {} is more than num_experts {}", config.num_experts_per_tok,
                             config.num_experts));
  if (const int64_t all = config.num_experts * config.num_hidden_layers;
      all > config_limits::kExpertsOfAllLayers)
    fields.fault(fmt::format("num_experts {} in num_hidden_layers {} are more than {} experts in all",
                             config.num_experts, config.num_hidden_layers,
                             config_limits::kExpertsOfAllLayers));
}

const std::set<std::string_view>& harmless_fields() {
  static const std::set<std::string_view> fields{
      // names, ids and records
      "_commit_hash", "_name_or_path", "architectures", "bos_token_id", "decoder_start_token_id",
      "finetuning_task", "id2label", "is_decoder", "label2id", "model_type", "num_labels", "pad_token_id",
      "prefix", "problem_type", "sep_token_id", "task_specific_params", "tokenizer_class",
      "transformers_version", "unsloth_fixed", "unsloth_version",
      // how transformers computes, and what it hands back
      "_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal",
      "_experts_implementation", "attn_implementation", "chunk_size_feed_forward", "experts_implementation",
      "gradient_checkpointing", "output_attentions", "output_hidden_states", "output_router_logits",
      "return_dict", "tf_legacy_loss", "torchscript", "use_bfloat16", "use_cache", "use_flash_attention",
      "use_flash_attention_2", "use_return_dict",
      // training alone
      "attention_dropout", "attn_pdrop", "embd_pdrop", "hidden_dropout", "initializer_range", "resid_pdrop",
      "router_aux_loss_coef", "router_jitter_noise", "router_z_loss_coef",
      // generating (transformers 4 wrote those that were not its defaults here)
      "bad_words_ids", "begin_suppress_tokens", "diversity_penalty", "do_sample", "early_stopping",
      "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "forced_bos_token_id",
      "forced_eos_token_id", "length_penalty", "max_length", "min_length", "no_repeat_ngram_size",
      "num_beam_groups", "num_beams", "num_return_sequences", "output_scores", "remove_invalid_values",
      "repetition_penalty", "return_dict_in_generate", "suppress_tokens", "temperature", "top_k", "top_p",
      "typical_p",
      // for windows that are not used, and encoders that are not there
      "cross_attention_hidden_size", "max_window_layers", "tie_encoder_decoder"};
  return fields;
}

}  // namespace moerun
