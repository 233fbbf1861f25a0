#pragma once
#include <memory>
#include <string_view>
#include <vector>

#include "model/config_fields.h"
#include "model/sequence_state.h"
#include "model/tensor_spec.h"
#include "moerun/model_config.h"

namespace moerun {

class Model;
struct ModelParts;

/// A family of models: one file of src/model/families says all that is its own, and a line of the table in
/// families.cpp makes it known.
struct Family {
  std::string_view architecture;      ///< in `architectures` of config.json
  std::string_view model_type;        ///< where there is no `architectures`
  std::string_view other_model_type;  ///< that early checkpoints have; empty: none
  /// Takes every field that changes the arithmetic; what it leaves is refused.
  void (*read)(Fields& fields, ModelConfig& config);
  /// Its tensors in the order in which they are loaded (tensors_of).
  void (*tensors)(const ModelConfig& config, TensorList& out);
  /// What each layer keeps of a sequence (kept_of_sequence).
  std::vector<KeptOfLayer> (*keeps)(const ModelConfig& config, const ModelShard& shard);
  std::unique_ptr<Model> (*make)(ModelParts parts);
};

namespace families {
extern const Family ernie4_5_moe, glm4_moe, minimax_m2, mixtral, olmoe, qwen2_moe, qwen3_5_moe,
    qwen3_5_moe_text, qwen3_moe, qwen3_next;
}  // namespace families

/// The family that `architectures`, or where that is absent `model_type`, names; null with a fault that says
/// which are known.
const Family* find_family(Fields& fields);

}  // namespace moerun
