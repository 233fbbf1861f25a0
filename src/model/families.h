#pragma once
#include <string_view>
#include <vector>

#include "model/config_fields.h"
#include "moerun/model_config.h"

namespace moerun {

/// A family of models: one file of src/model/families says all that is its own, and a line of the table in
/// families.cpp makes it known.
struct Family {
  std::string_view architecture;  ///< in `architectures` of config.json
  std::string_view model_type;    ///< where there is no `architectures`
  /// Takes every field that changes the arithmetic; what it leaves is refused.
  void (*read)(Fields& fields, ModelConfig& config);
};

namespace families {
extern const Family qwen3_moe;
}  // namespace families

/// The family that `architectures`, or where that is absent `model_type`, names; null with a fault that says
/// which are known.
const Family* find_family(Fields& fields);

}  // namespace moerun
