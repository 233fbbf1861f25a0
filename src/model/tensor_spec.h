#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "moerun/dtype.h"
#include "moerun/fp8.h"
#include "moerun/model_config.h"

namespace moerun {

struct ModelShard;

/// What a tensor is to the model. Those of attention and MLPs are a layer's.
enum class Role {
  embedding,
  input_norm,
  q,
  k,
  v,
  q_bias,
  k_bias,
  v_bias,
  q_norm,
  k_norm,
  output,
  output_bias,
  post_attention_norm,
  router,
  router_bias,
  gate,
  up,
  down,
  gate_bias,
  up_bias,
  down_bias,
  shared_gate,
  delta_q,  ///< of a gated delta net's projection; where a checkpoint has it in one, all of it
  delta_k,
  delta_v,
  delta_z,
  delta_b,  ///< of the gates' projection; where a checkpoint has it in one, all of it
  delta_a,
  conv_q,
  conv_k,
  conv_v,
  delta_a_log,
  delta_dt_bias,
  delta_norm,
  final_norm,
  lm_head,
  lm_head_bias
};

constexpr int32_t kNoExpert = -1, kSharedExpert = -2;

/// Where a tensor goes.
struct Place {
  Role role = Role::embedding;
  int64_t layer = -1;          ///< −1: the model's own
  int32_t expert = kNoExpert;  ///< global id, or the one that every token takes
};

/// Which part of it a rank takes.
enum class Cut {
  whole,
  query_rows,      ///< rows [num_attention_heads · head_dim]: those of the rank's heads
  key_value_rows,  ///< rows [num_key_value_heads · head_dim]: those of its key/value heads
  query_columns,   ///< the same of columns: of its query heads
  even_rows,       ///< an equal part of the rows for each tensor-parallel rank, in their order
  even_columns,    ///< the same of columns
  expert           ///< whole where the expert is at home, nothing elsewhere
};

/// How the device keeps a tensor's numbers.
struct WeightFormat {
  DType dtype = DType::float32;

  bool is_fp8() const { return dtype == DType::e4m3; }
  /// Of e4m3 with its scales: a float32 for each row and group (moerun/fp8.h).
  int64_t bytes(int64_t rows, int64_t cols) const {
    const int64_t scales = is_fp8() ? rows * scale_groups(cols) * 4 : 0;
    return rows * cols * static_cast<int64_t>(size_of(dtype)) + scales;
  }
};

/// How checkpoints keep the scales of a matrix in e4m3: a tensor of their own beside it.
struct StoredScales {
  std::string name;
  int64_t block_rows = 0, block_cols = 0;  ///< weights that share a scale; less in the last blocks
  std::vector<int64_t> shape;              ///< [⌈rows / block_rows⌉, ⌈cols / block_cols⌉]
  int64_t row0 = 0;  ///< row of what the checkpoint has in one at which this tensor begins
};

/// A spelling of a tensor in checkpoints: by itself, or as a part of a stack of several.
struct StoredAs {
  std::string name;
  std::vector<int64_t> shape;  ///< of what has the name
  int64_t first = 0;           ///< element of it with which this tensor begins
};

/// A tensor of a model: a matrix [rows, cols], or a vector as [1, cols].
struct TensorSpec {
  std::string drawn_as;          ///< the published name, by which dummy weights are drawn
  std::vector<StoredAs> stored;  ///< a checkpoint has one of these
  bool tied = false;  ///< `stored` is a spelling of its own, and another tensor's where that is absent
  int64_t rows = 1, cols = 0;
  Cut cut = Cut::whole;
  Place place;
  float added = 0;  ///< to each number where it is loaded: norms centred at zero
  WeightFormat format;
  StoredScales scales;  ///< where the format is e4m3
};

/// Rows [row0, row1) and columns [col0, col1) of a tensor; none where row0 == row1.
struct TensorPart {
  int64_t row0 = 0, row1 = 0, col0 = 0, col1 = 0;
  int64_t rows() const { return row1 - row0; }
  int64_t cols() const { return col1 - col0; }
};
TensorPart part_of_rank(const TensorSpec& spec, const ModelConfig& config, const ModelShard& shard);

/// Every tensor of a model, in the order in which it is loaded: what checking a checkpoint, loading, counting
/// bytes and loading copies of experts all go by.
std::vector<TensorSpec> tensors_of(const ModelConfig& config, DType dtype);

/// Collects a family's tensors. Matrices of linear layers get the format that the checkpoint's quantisation
/// says, all else gets `format`.
class TensorList {
 public:
  TensorList(WeightFormat format, const ModelConfig& config) : format_(format), config_(config) {}

  TensorSpec& matrix(const std::string& name, int64_t rows, int64_t cols, Cut cut, Place place);
  TensorSpec& vector(const std::string& name, int64_t cols, Cut cut, Place place);
  /// A norm's weights, which are whole on every rank; around 1, or as the configuration says around 0.
  TensorSpec& norm(const std::string& name, int64_t cols, Place place);
  /// Some rows of a matrix [whole_rows, cols] that the checkpoint has in one.
  struct RowRange {
    int64_t first = 0, count = 0, cols = 0;
  };
  TensorSpec& rows_of(const std::string& name, int64_t whole_rows, const RowRange& rows, Cut cut,
                      Place place);
  std::vector<TensorSpec> take() { return std::move(tensors_); }

 private:
  TensorSpec& add(const std::string& name, const std::vector<int64_t>& shape, Cut cut, Place place);

  WeightFormat format_;
  const ModelConfig& config_;
  std::vector<TensorSpec> tensors_;
};

}  // namespace moerun
