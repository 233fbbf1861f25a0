#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "moerun/dtype.h"

namespace moerun {

/// Rotary position embedding. `factor` and what follows are used by `linear` and `yarn` alone.
/// YaRN: Peng et al., arXiv:2309.00071, in the form of Hugging Face `modeling_rope_utils.py`.
struct RopeConfig {
  enum class Type { standard, linear, yarn } type = Type::standard;
  double theta = 10000;
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
};

/// What of a checkpoint's config.json changes the arithmetic, whatever the family calls it.
struct ModelConfig {
  const Family* family = nullptr;  ///< whose file says how these are read and used (src/model/families)
  int64_t vocab_size = 0, hidden_size = 0, num_hidden_layers = 0;
  int64_t num_attention_heads = 0, num_key_value_heads = 0, head_dim = 0;
  int64_t intermediate_size = 0;  ///< of dense layers
  int64_t moe_intermediate_size = 0, num_experts = 0, num_experts_per_tok = 0;
  std::vector<bool> sparse;  ///< [num_hidden_layers] layers with experts; the others are dense
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  RopeConfig rope;
  QkNorm qk_norm = QkNorm::none;
  bool norm_topk_prob = false, attention_bias = false, tie_word_embeddings = false;
  DType dtype = DType::bfloat16;       ///< of the checkpoint (`torch_dtype`/`dtype`)
  std::vector<int32_t> eos_token_ids;  ///< generation_config.json's, else config.json's
  std::string checksum;                ///< SHA-256 (hex) of config.json's bytes
  std::vector<std::string> notes;      ///< sentences for the user

  bool is_sparse(int64_t layer) const { return sparse[static_cast<size_t>(layer)]; }
};

}  // namespace moerun
