#pragma once
#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "moerun/delta_net.h"
#include "moerun/dtype.h"
#include "moerun/router_rule.h"

namespace moerun {

/// Rotary position embedding. `factor` and what follows are used by `linear` and `yarn` alone.
/// YaRN: Peng et al., arXiv:2309.00071, in the form of Hugging Face `modeling_rope_utils.py`.
struct RopeConfig {
  enum class Type { standard, linear, yarn } type = Type::standard;
  double theta = 10000;
  double partial = 1;        ///< of a head's elements, the first ones, are rotated; the others stay
  bool interleaved = false;  ///< elements 2i and 2i + 1 rotate into each other, not i and i + half of them
  double factor = 1;
  double attention_factor = 0;  ///< 0: derived from factor
  double beta_fast = 32, beta_slow = 1;
  double mscale = 0, mscale_all_dim = 0;
  int64_t original_max_position_embeddings = 0;
  bool truncate = true;
};

struct Family;

/// RMSNorm of queries and keys before they are rotated.
enum class QkNorm {
  none,
  per_head,  ///< one weight [head_dim] for all heads
  whole,     ///< over all heads together: one weight for each element of each head
};

/// Tensors of a checkpoint that no answer needs.
struct PassedOver {
  std::string prefix;  ///< of their names
  std::string what;    ///< they are, for the user
};

/// How a checkpoint keeps the matrices of its linear layers (`quantization_config`). Embedding, router, norms
/// and LM head are as published in every scheme.
struct Quantization {
  /// A matrix is in e4m3, and its scales are a tensor of the module's name with this behind it
  /// (".weight_scale_inv"); empty: nothing is quantised.
  std::string scales;
  int64_t block_rows = 0, block_cols = 0;  ///< weights that share a scale; 0: all columns
  /// Modules that are not: a module's whole name, or what it begins or ends with, up to a dot.
  std::set<std::string, std::less<>> not_converted;

  bool is_fp8() const { return !scales.empty(); }
};

/// What of a checkpoint's config.json changes the arithmetic, whatever the family calls it.
struct ModelConfig {
  const Family* family = nullptr;  ///< whose file says how these are read and used (src/model/families)
  int64_t vocab_size = 0, hidden_size = 0, num_hidden_layers = 0;
  int64_t num_attention_heads = 0, num_key_value_heads = 0, head_dim = 0;
  int64_t intermediate_size = 0;  ///< of dense layers
  int64_t moe_intermediate_size = 0, num_experts = 0, num_experts_per_tok = 0;
  RouterRule router;
  bool router_bias = false;              ///< added to scores where experts are chosen, and to no weight
  bool router_float32 = false;           ///< its matrix is kept in float32, whatever the model's dtype
  int64_t shared_intermediate_size = 0;  ///< of the expert that every token takes; 0: none
  bool shared_expert_gate = false;       ///< its output is multiplied by a sigmoid of its own
  std::vector<bool> sparse;              ///< [num_hidden_layers] layers with experts; the others are dense
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  RopeConfig rope;
  QkNorm qk_norm = QkNorm::none;
  bool zero_centred_norms = false;  ///< norms multiply by 1 + weight; that behind a delta net does not
  bool attention_gate = false;      ///< heads' outputs are multiplied by sigmoids of as many elements
  DeltaShape delta;                 ///< of layers with a gated delta net in attention's place
  std::vector<bool> delta_layers;   ///< [num_hidden_layers] which those are; empty: none
  bool qkv_bias = false, output_bias = false;  ///< of attention's projections
  bool mlp_bias = false;                       ///< of dense layers' and the shared expert's
  bool head_bias = false;
  bool tie_word_embeddings = false;
  DType dtype = DType::bfloat16;  ///< of the checkpoint (`torch_dtype`/`dtype`)
  Quantization quantization;
  std::vector<int32_t> eos_token_ids;   ///< generation_config.json's, else config.json's
  std::string checksum;                 ///< SHA-256 (hex) of config.json's bytes
  std::string tensor_prefix = "model";  ///< of the decoder's tensors' names
  std::vector<PassedOver> passed_over;
  std::vector<std::string> notes;  ///< sentences for the user

  /// Elements of a head that are rotated.
  int64_t rotary_dim() const { return static_cast<int64_t>(static_cast<double>(head_dim) * rope.partial); }
  bool has_delta_nets() const { return !delta_layers.empty(); }
  bool is_delta(int64_t layer) const { return has_delta_nets() && delta_layers[static_cast<size_t>(layer)]; }
  bool is_sparse(int64_t layer) const { return sparse[static_cast<size_t>(layer)]; }
};

}  // namespace moerun
