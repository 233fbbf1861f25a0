// What config.json and generation_config.json may say: which fields run at which values, and which are
// refused.
#include "model/config.h"

#include <fmt/format.h>

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>

#include "job/job_file.h"
#include "model/config_fields.h"
#include "model/families.h"
#include "model/generation_config.h"
#include "moerun/error.h"
#include "tests/catch.h"

using namespace moerun;
using Json = nlohmann::json;

namespace {

Json published(const std::string& directory = "data/qwen3-30b-a3b") {
  std::ifstream file(directory + "/config.json");
  return Json::parse(file);
}

ModelConfig parse(const Json& config) {
  return parse_model_config(config.dump(), GenerationConfig(), "config.json");
}

/// What is refused in the published configuration with these changes; empty: it runs.
std::string refused(const Json& changes) {
  Json config = published();
  for (const auto& [key, value] : changes.items()) config[key] = value;
  try {
    parse(config);
    return "";
  } catch (const BadInput& fault) {
    return fault.what();
  }
}

std::string not_taken(const std::string& file, const SamplingParams& job = {}) {
  return sampling_not_taken(parse_generation_config(file, "generation_config.json"), job,
                            "generation_config.json");
}

}  // namespace

TEST_CASE("config: fields that change nothing at their value run, and are refused at others", "[model]") {
  // Qwen3-Coder's own fields, what trainers leave, and what transformers' base class writes.
  for (const char* const harmless :
       {R"({"qkv_bias": false})", R"({"use_qk_norm": true})", R"({"shared_expert_intermediate_size": 0})",
        R"({"_attn_implementation_autoset": true})",
        R"({"unsloth_version": "2026.4.7", "unsloth_fixed": true})", R"({"quantization_config": null})",
        R"({"pretraining_tp": 1})", R"({"tokenizer_class": null})", R"({"partial_rotary_factor": 1.0})",
        R"({"auto_map": {}})", R"({"some_future_field": null})", R"({"head_dim": null})",
        R"({"mlp_bias": false})", R"({"temperature": 0.7, "top_p": 0.8})",
        R"({"is_encoder_decoder": false, "pruned_heads": {}})", R"({"num_local_experts": 128})",
        R"({"layer_types": null})", R"({"rope_parameters": null})"}) {
    CAPTURE(harmless);
    CHECK(refused(Json::parse(harmless)).empty());
  }
  for (const auto& [changes, part] : std::initializer_list<std::pair<const char*, const char*>>{
           {R"({"qkv_bias": true})", "qkv_bias is true"},
           {R"({"use_qk_norm": false})", "use_qk_norm is false"},
           {R"({"shared_expert_intermediate_size": 768})", "shared_expert_intermediate_size is 768"},
           {R"({"quantization_config": {"bits": 4}})",
            "quantization_config: quant_method none is not supported"},
           {R"({"pretraining_tp": 2})", "pretraining_tp is 2"},
           {R"({"partial_rotary_factor": 0.5})", "partial_rotary_factor is 0.5"},
           {R"({"some_future_field": 1})", "field some_future_field (1) is not understood"},
           {R"({"num_local_experts": 64})", "num_experts is 128 and num_local_experts is 64"},
           {R"({"hidden_act": "gelu"})", "hidden_act is \"gelu\""},
           {R"({"mlp_bias": true})", "mlp_bias is true"},
           {R"({"model_type": "mixtral"})", "model_type mixtral is not that of Qwen3MoeForCausalLM"}}) {
    CAPTURE(changes);
    CHECK_THAT(refused(Json::parse(changes)), ContainsSubstring(part));
  }
}

TEST_CASE("config: as transformers 5 writes it", "[model]") {
  Json config = published();
  config["num_local_experts"] = config["num_experts"];
  config["dtype"] = config["torch_dtype"];
  config["rope_parameters"] = {{"rope_theta", 5e6}, {"rope_type", "default"}};
  for (const char* const gone : {"num_experts", "torch_dtype", "rope_theta", "rope_scaling"})
    config.erase(gone);
  const ModelConfig read = parse(config);
  CHECK(read.num_experts == 128);
  CHECK(read.rope.theta == 5e6);
  CHECK(read.family->architecture == "Qwen3MoeForCausalLM");
  CHECK(std::count(read.sparse.begin(), read.sparse.end(), true) == 48);
}

TEST_CASE("config: Mixtral", "[model]") {
  const Json mixtral = published("tests/golden/shapes/mixtral");
  const auto fault = [&](const char* changes) {
    Json config = mixtral;
    config.update(Json::parse(changes));
    try {
      parse(config);
    } catch (const BadInput& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(parse(mixtral).family->architecture == "MixtralForCausalLM");
  for (const char* const runs :
       {R"({"sliding_window": 256})", R"({"head_dim": null})", R"({"attention_bias": false})"}) {
    CAPTURE(runs);
    CHECK(fault(runs).empty());
  }
  CHECK_THAT(fault(R"({"sliding_window": 255})"), ContainsSubstring("sliding_window is 255, less than"));
  CHECK_THAT(fault(R"({"attention_bias": true})"), ContainsSubstring("attention_bias is true"));
  CHECK_THAT(fault(R"({"num_local_experts": 0})"), ContainsSubstring("num_local_experts is 0"));
  CHECK_THAT(fault(R"({"norm_topk_prob": false})"), ContainsSubstring("norm_topk_prob is false"));
}

namespace {

/// What is refused of a golden shape's configuration with these changes; null takes a field away.
std::string refused_of(const std::string& shape, const char* changes) {
  Json config = published("tests/golden/shapes/" + shape);
  config.merge_patch(Json::parse(changes));
  try {
    parse(config);
  } catch (const BadInput& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("config: what each family reads, and what it refuses by name", "[model]") {
  struct Case {
    const char *shape, *changes, *part;  ///< part empty: it runs
  };
  for (const Case& c : std::initializer_list<Case>{
           {"olmoe", "{}", ""},
           {"olmoe", R"({"clip_qkv": 8.0})", "clip_qkv is 8.0, and clipped"},
           {"olmoe", R"({"head_dim": 8})", "head_dim 8 of num_attention_heads 8 is not hidden_size 48"},
           {"qwen2-moe", R"({"sliding_window": 16})", ""},
           {"qwen2-moe", R"({"use_sliding_window": true})", "use_sliding_window is true"},
           {"qwen2-moe", R"({"shared_expert_intermediate_size": null})", "size is missing"},
           {"qwen2-moe", R"({"partial_rotary_factor": 0.5})", "partial_rotary_factor is 0.5"},
           {"qwen2-moe", R"({"num_key_value_heads": null})", "num_key_value_heads is missing"},
           {"glm4-moe", R"({"n_group": 3})", "n_group 3 does not cut n_routed_experts 8"},
           {"glm4-moe", R"({"n_group": 8})", "n_group 8 does not cut"},
           {"glm4-moe", R"({"topk_group": 1})", "topk_group 1 of n_group 4 groups do not hold"},
           {"glm4-moe", R"({"topk_group": 5})", "topk_group 5 of n_group 4"},
           {"glm4-moe", R"({"routed_scaling_factor": 0})", "routed_scaling_factor is 0"},
           {"glm4-moe", R"({"partial_rotary_factor": 0.4})", "is 3 elements, which must be an even number"},
           {"glm4-moe", R"({"partial_rotary_factor": 1.5})", "is 12 elements, which must be"},
           {"glm4-moe", R"({"scoring_func": "softmax"})", "scoring_func is \"softmax\""},
           {"minimax-m2", R"({"model_type": "minimax"})", ""},
           {"minimax-m2", R"({"attn_type_list": [1, 0]})", "attn_type_list is [1,0], and linear attention"},
           {"minimax-m2", R"({"use_routing_bias": false})", "use_routing_bias is false"},
           {"minimax-m2", R"({"shared_intermediate_size": 64})", "shared_intermediate_size is 64"},
           {"minimax-m2", R"({"sliding_window": 100})", "sliding_window is 100, less than"},
           {"minimax-m2", R"({"head_dim": null})", "head_dim is missing"},
           {"ernie4-5-moe", R"({"moe_num_experts": null, "num_experts": 6})", ""},
           {"ernie4-5-moe", R"({"num_experts": 7})", "moe_num_experts is 6 and num_experts is 7"},
           {"ernie4-5-moe", R"({"moe_norm_min": -1.0})", "moe_norm_min is -1"},
           {"ernie4-5-moe", R"({"use_rmsnorm": false})", "use_rmsnorm is false"},
           {"qwen3-next", R"({"linear_num_value_heads": 12})", "12 is no multiple of linear_num_key_heads 8"},
           {"qwen3-next", R"({"linear_key_head_dim": null})", "linear_key_head_dim is missing"},
           {"qwen3-next", R"({"linear_conv_kernel_dim": 1})", "linear_conv_kernel_dim is 1"},
           {"qwen3-next", R"({"full_attention_interval": 1})", "no layer has linear_attention"},
           {"qwen3-next", R"({"full_attention_interval": 5})", "no layer has full_attention"},
           {"qwen3-next", R"({"layer_types": ["linear_attention"]})",
            "must be a list of num_hidden_layers 4"},
           {"qwen3-next", R"({"layer_types": ["sliding_attention", "x", "y", "z"]})",
            "\"sliding_attention\", and"},
           {"qwen3-next", R"({"head_dim": null})", "head_dim is missing"},
           {"qwen3-next", R"({"use_sliding_window": true})", "use_sliding_window is true"},
           {"qwen3-5-moe", R"({"text_config": {"attn_output_gate": true, "mamba_ssm_dtype": "float32"}})",
            ""},
           {"qwen3-5-moe", R"({"text_config": {"attn_output_gate": false}})",
            "text_config: attn_output_gate is false"},
           {"qwen3-5-moe", R"({"text_config": {"mamba_ssm_dtype": "bfloat16"}})",
            "mamba_ssm_dtype is \"bfloat16\""},
           {"qwen3-5-moe", R"({"text_config": {"mlp_only_layers": [1]}})", "mlp_only_layers is [1]"},
           {"qwen3-5-moe", R"({"text_config": {"surprise": 1}})", "text_config: field surprise (1) is not"},
           {"qwen3-5-moe", R"({"text_config": null})", "text_config is missing"},
           {"qwen3-5-moe", R"({"text_config": 3})", "text_config is no object"},
           {"qwen3-5-moe", R"({"tie_word_embeddings": true})", "text_config says otherwise"},
           {"qwen3-5-moe", R"({"surprise": 1})", "surprise"}}) {
    CAPTURE(c.shape, c.changes);
    if (*c.part)
      CHECK_THAT(refused_of(c.shape, c.changes), ContainsSubstring(c.part));
    else
      CHECK(refused_of(c.shape, c.changes).empty());
  }
}

TEST_CASE("config: which layers are sparse, what is rotated, and what is passed over", "[model]") {
  const ModelConfig glm = parse(published("tests/golden/shapes/glm4-moe"));
  CHECK(glm.sparse == std::vector<bool>{false, true, true});
  CHECK(glm.rotary_dim() == 4);
  REQUIRE(glm.passed_over.size() == 1);
  CHECK(glm.passed_over[0].prefix == "model.layers.3.");
  CHECK(parse(published("tests/golden/shapes/minimax-m2")).rotary_dim() == 4);
  CHECK(parse(published("tests/golden/shapes/minimax-m2")).passed_over.size() == 3);
  const ModelConfig next = parse(published("tests/golden/shapes/qwen3-next"));
  CHECK(next.delta_layers == std::vector<bool>{true, true, true, false});
  CHECK(next.rotary_dim() == 4);
  const ModelConfig vision = parse(published("tests/golden/shapes/qwen3-5-moe"));
  CHECK(vision.dtype == DType::bfloat16);
  CHECK(vision.eos_token_ids == std::vector<int32_t>{0});
  REQUIRE(vision.passed_over.size() == 2);
  CHECK(vision.passed_over[1].prefix == "model.visual.");
  const ModelConfig ernie = parse(published("tests/golden/shapes/ernie4-5-moe-stacked"));
  CHECK(ernie.sparse == std::vector<bool>{false, true, false, false});
  CHECK(ernie.rope.interleaved);
}

TEST_CASE("config: a family that is not known is told those that are, and how to add one", "[model]") {
  for (const char* const changes :
       {R"({"architectures": ["NewForCausalLM"]})", R"({"architectures": null, "model_type": "new"})"}) {
    const std::string said = refused(Json::parse(changes));
    CAPTURE(said);
    CHECK_THAT(said, ContainsSubstring("CONTRIBUTING.md says how to add a family"));
    const bool by_class = said.find("NewForCausalLM") != std::string::npos;
    for (const auto& [architecture, type] : {std::pair{"Glm4MoeForCausalLM", "glm4_moe"},
                                             {"MiniMaxM2ForCausalLM", "minimax_m2"},
                                             {"Ernie4_5_MoeForCausalLM", "ernie4_5_moe"},
                                             {"OlmoeForCausalLM", "olmoe"}})
      CHECK_THAT(said, ContainsSubstring(by_class ? architecture : type));
  }
}

TEST_CASE("config: a custom class is said to be passed over", "[model]") {
  Json config = published();
  config["auto_map"] = {{"AutoModelForCausalLM", "modeling.Mine"}};
  REQUIRE(parse(config).notes.size() == 1);
  CHECK_THAT(parse(config).notes[0], ContainsSubstring("auto_map"));
}

TEST_CASE("config: numbers out of bounds are refused by name before anything is made of them", "[model]") {
  for (const char* const key :
       {"num_key_value_heads", "head_dim", "hidden_size", "num_attention_heads", "num_hidden_layers",
        "vocab_size", "num_experts", "num_experts_per_tok", "moe_intermediate_size", "intermediate_size",
        "max_position_embeddings", "decoder_sparse_step"})
    for (const char* const value : {"-1", "-9223372036854775808", "1099511627776", "9223372036854775807",
                                    "18446744073709551615", "1e30"}) {
      CAPTURE(key, value);
      CHECK_THAT(refused(Json::parse(std::string("{\"") + key + "\": " + value + "}")),
                 ContainsSubstring(std::string("config.json: ") + key + " "));
    }
  for (const char* const key : {"num_key_value_heads", "head_dim", "hidden_size"}) {
    CAPTURE(key);
    CHECK_THAT(refused({{key, 0}}), ContainsSubstring(std::string(key) + " is 0, and must be at least 1"));
  }
  CHECK_THAT(refused({{"num_experts", int64_t{1} << 33}}),
             ContainsSubstring("num_experts is 8589934592, and must be at most"));
  CHECK_THAT(refused({{"num_experts", 4096}, {"num_hidden_layers", 1024}}),
             ContainsSubstring("experts in all"));
  // 2^32 and 2^32 + 5 would wrap to 0 and 5.
  CHECK_THAT(refused({{"eos_token_id", int64_t{1} << 32}}),
             ContainsSubstring("eos_token_id 4294967296 is no token id"));
  CHECK_THAT(refused({{"eos_token_id", {0, 4294967301}}}),
             ContainsSubstring("eos_token_id 4294967301 is no token id"));
  CHECK_THAT(refused({{"eos_token_id", -1}}), ContainsSubstring("eos_token_id -1 is no token id"));
  CHECK_THAT(refused({{"rms_norm_eps", -1.0}}), ContainsSubstring("rms_norm_eps is -1"));
  CHECK_THAT(refused({{"rope_theta", 0}}), ContainsSubstring("rope_theta is 0"));
  CHECK_THAT(refused({{"mlp_only_layers", {1u << 31}}}),
             ContainsSubstring("mlp_only_layers names layer 2147483648 of 48"));
}

TEST_CASE("config: nesting and size are bounded before it is parsed", "[model]") {
  const auto fault = [](const std::string& text) {
    try {
      parse_model_config(text, GenerationConfig(), "config.json");
    } catch (const BadInput& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const std::string deep(200'000, '[');
  CHECK(fault("{\"a\": " + deep) == "config.json: is nested more than 64 deep");
  CHECK(fault("{\"a\": " + deep + std::string(200'000, ']') + "}") ==
        "config.json: is nested more than 64 deep");
  CHECK(fault(std::string("{\"a\": \"") + deep + "\"}").find("nested") == std::string::npos);  // in a string
  CHECK_THAT(fault(std::string((16u << 20) + 1, ' ')), ContainsSubstring("at most 16777216 are read"));
}

TEST_CASE("generation_config: values that a job does not take are said, with how to take them", "[model]") {
  CHECK(
      not_taken(R"({"eos_token_id": 5, "do_sample": false, "temperature": 0.7, "pad_token_id": 1})").empty());
  CHECK(not_taken(R"({"temperature": 1.0, "top_p": 1, "repetition_penalty": 1.0, "num_beams": 1})").empty());
  const std::string said = not_taken(
      R"({"do_sample": true, "repetition_penalty": 1.05, "temperature": 0.7, "top_p": 0.8, "top_k": 20})");
  CHECK(said ==
        "generation_config.json: temperature 0.7, top_p 0.8, top_k 20, repetition_penalty 1.05 are not taken "
        "from "
        "there; to answer with them: sampling.temperature=0.7 sampling.top_p=0.8 sampling.top_k=20 "
        "sampling.repetition_penalty=1.05");
  SamplingParams job{.draw = {.temperature = 0.7F, .top_p = 0.8F, .top_k = 20}};
  CHECK_THAT(
      not_taken(R"({"do_sample": true, "repetition_penalty": 1.05, "temperature": 0.7, "top_p": 0.8})", job),
      ContainsSubstring("repetition_penalty 1.05 is not taken") && !ContainsSubstring("temperature"));
  job.draw.repetition_penalty = 1.05F;
  CHECK(not_taken(R"({"do_sample": true, "repetition_penalty": 1.05, "temperature": 0.7, "top_k": 20})", job)
            .empty());
  CHECK_THAT(not_taken(R"({"do_sample": true})"), ContainsSubstring("temperature 1.0 is not taken"));
  CHECK_THAT(not_taken(R"({"no_repeat_ngram_size": 3})"),
             ContainsSubstring("no_repeat_ngram_size 3 is not taken") && !ContainsSubstring("sampling."));
}

TEST_CASE("sampling.defaults: model takes what vLLM takes, where the job is silent", "[model]") {
  const auto take = [](const std::string& file, const std::vector<std::string>& overrides) {
    Job job = parse_job("model: {path: m}\ninput: {path: a.jsonl}\noutput: {path: a.h5}\n", "job", overrides);
    const std::string said = take_sampling(parse_generation_config(file, "g.json"), "g.json", job);
    const DrawParams& draw = job.sampling.draw;
    return fmt::format("{} | {} {} {} {} {} {}", said, draw.temperature, draw.top_p, draw.top_k, draw.min_p,
                       draw.repetition_penalty, job.sampling.max_tokens);
  };
  const std::string file =
      R"({"do_sample": true, "repetition_penalty": 1.05, "temperature": 0.7, "top_p": 0.8, "top_k": 20,
          "min_p": 0.1, "max_new_tokens": 9, "presence_penalty": 1})";
  CHECK(take(file, {}) ==
        "temperature 0.7, top_p 0.8, top_k 20, min_p 0.1, repetition_penalty 1.05 | 0.7 0.8 20 0.1 1.05 16");
  // Also where the job says what is the default anyway.
  CHECK(take(file, {"sampling.temperature=0", "sampling={top_p: 1, seed: 3}", "sampling.top_k=5"}) ==
        "min_p 0.1, repetition_penalty 1.05 | 0 1 5 0.1 1.05 16");
  CHECK(take(R"({"temperature": 1.0, "top_p": 1.0})", {}) == "temperature 1.0 | 1 1 0 0 1 16");
  CHECK(take(R"({"do_sample": true})", {}) == "temperature 1.0 | 1 1 0 0 1 16");
  CHECK(take(R"({"do_sample": false, "temperature": 0.7, "top_k": -1})", {}) == "nothing | 0 1 0 0 1 16");
  CHECK(take(R"({"top_k": -1})", {}) == "nothing | 0 1 0 0 1 16");
  CHECK_THROWS_WITH(take(R"({"temperature": -2, "top_p": "high"})", {}),
                    "g.json: temperature must be a number from 0 to 100, not -2; give sampling.temperature, "
                    "or sampling.defaults: none\ng.json: top_p must be a number above 0 and at most 1, not "
                    "\"high\"; give sampling.top_p, or sampling.defaults: none");
  CHECK(take(R"({"temperature": -2})", {"sampling.temperature=0.5"}) == "nothing | 0.5 1 0 0 1 16");
}

TEST_CASE("config: FP8 as it is published, module by module", "[model]") {
  Json config = published();
  Json not_converted = Json::array({"lm_head", "model.layers.3.self_attn", "experts.7.down_proj"});
  for (int layer = 0; layer < 48; ++layer)
    for (const char* const name : {"input_layernorm", "mlp.gate", "post_attention_layernorm"})
      not_converted.push_back("model.layers." + std::to_string(layer) + "." + name);
  config["quantization_config"] = {{"activation_scheme", "dynamic"},
                                   {"fmt", "e4m3"},
                                   {"quant_method", "fp8"},
                                   {"weight_block_size", {128, 128}},
                                   {"modules_to_not_convert", not_converted}};
  // Of an expert's down projections one alone is not converted, and they are one matrix here.
  CHECK_THROWS_AS(parse(config), BadInput);
  config["quantization_config"]["modules_to_not_convert"][2] = "down_proj";
  const auto spec_of = [&](const std::string& name) {
    const ModelConfig parsed = parse(config);
    for (const TensorSpec& spec : tensors_of(parsed, DType::bfloat16))
      if (spec.drawn_as == name) return spec;
    return TensorSpec{};
  };
  const TensorSpec k = spec_of("model.layers.2.self_attn.k_proj.weight");
  CHECK(k.format.dtype == DType::e4m3);
  CHECK(k.scales.name == "model.layers.2.self_attn.k_proj.weight_scale_inv");
  CHECK(k.scales.shape == std::vector<int64_t>{4, 16});  // [512, 2048]
  CHECK(k.format.bytes(512, 2048) == 512 * 2048 + 512 * 16 * 4);
  CHECK(spec_of("model.layers.30.mlp.experts.7.up_proj.weight").format.is_fp8());
  for (const char* const name :
       {"model.layers.3.self_attn.k_proj.weight", "model.layers.2.mlp.experts.7.down_proj.weight",
        "model.layers.2.mlp.gate.weight", "lm_head.weight", "model.embed_tokens.weight"})
    CHECK(spec_of(name).format.dtype == DType::bfloat16);

  // compressed-tensors: a scale a row, and patterns.
  config["quantization_config"] = Json::parse(R"({
    "quant_method": "compressed-tensors", "format": "float-quantized", "quantization_status": "compressed",
    "ignore": ["lm_head", "re:.*mlp\\.gate$", "re:model\\.layers\\.1\\."],
    "kv_cache_scheme": {"dynamic": false, "num_bits": 8, "strategy": "tensor", "symmetric": true, "type": "float",
                        "group_size": null, "block_structure": null, "actorder": null, "observer": "minmax",
                        "observer_kwargs": {}},
    "config_groups": {"group_0": {"targets": ["Linear"], "output_activations": null,
      "weights": {"dynamic": false, "num_bits": 8, "strategy": "channel", "symmetric": true, "type": "float",
                  "observer": "minmax", "observer_kwargs": {}, "group_size": null, "block_structure": null},
      "input_activations": {"dynamic": true, "num_bits": 8, "strategy": "token", "symmetric": true,
                            "type": "float", "actorder": null, "observer": null}}}})");
  const TensorSpec row = spec_of("model.layers.2.self_attn.k_proj.weight");
  CHECK(row.format.is_fp8());
  CHECK(row.scales.name == "model.layers.2.self_attn.k_proj.weight_scale");
  CHECK(row.scales.shape == std::vector<int64_t>{512, 1});
  CHECK(spec_of("model.layers.10.mlp.experts.0.down_proj.weight").format.is_fp8());
  CHECK_FALSE(spec_of("model.layers.1.mlp.experts.0.down_proj.weight").format.is_fp8());
}
