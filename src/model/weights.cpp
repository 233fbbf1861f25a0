#include "model/weights.h"

#include <fmt/format.h>

#include <deque>

#include "model/stored_scales.h"
#include "moerun/half.h"

namespace moerun {

namespace {

/// Brings tensors of one rank's part to the device: each spec finds its room, which is made when the first
/// that needs it comes by.
class Loader {
 public:
  Loader(Device& device, const ModelConfig& config, const ModelShard& shard, Weights& out)
      : device_(device), config_(config), shard_(shard), out_(out) {}

  /// Makes the room that a tensor goes to, also where this rank holds none of it.
  void make_room(const TensorSpec& spec);
  /// Fills the room with the rank's part. `slot`: of an expert's matrix.
  void load(const TensorSpec& spec, int64_t slot, const WeightSource& source, const LoadProgress& progress);

 private:
  /// The numbers plus spec.added.
  HostMatrix with_added(const TensorSpec& spec, const HostMatrix& part);
  LayerWeights& layer(const TensorSpec& spec) { return out_.layers[static_cast<size_t>(spec.place.layer)]; }
  MlpWeights& mlp(const TensorSpec& spec) {
    return spec.place.expert == kSharedExpert ? layer(spec).shared : layer(spec).mlp;
  }
  /// Where a tensor goes that is one of its own; null for parts of a matrix.
  Tensor* tensor_of(const TensorSpec& spec);
  /// The matrix that a tensor is (a part of), and the row of it where the tensor begins.
  struct Rows {
    Matrix* matrix = nullptr;
    int64_t row0 = 0;
  };
  Rows rows_of(const TensorSpec& spec);
  void make_matrix(const TensorSpec& spec, Matrix& matrix);
  /// Elements of a rank's q and k heads, in front of what follows them.
  int64_t q_rows() const { return shard_.query_width(config_); }
  int64_t kv_rows() const { return shard_.num_kv_heads(config_) * config_.head_dim; }
  int64_t row_of(Role role, int64_t rows) const;

  Device& device_;
  const ModelConfig& config_;
  const ModelShard& shard_;
  Weights& out_;
  std::deque<std::vector<float>> made_;  // numbers that were changed on the host, until they are loaded
};

bool is_bias_of_qkv(Role role) {
  return role == Role::q_bias || role == Role::k_bias || role == Role::v_bias;
}

/// Where a tensor of `rows` rows begins in what it shares with others: queries, keys, values; gate, up.
int64_t Loader::row_of(Role role, int64_t rows) const {
  const DeltaShape delta = shard_.delta(config_);
  switch (role) {
    case Role::k:
    case Role::k_bias:
      return q_rows();
    case Role::v:
    case Role::v_bias:
      return q_rows() + kv_rows();
    case Role::delta_k:
    case Role::conv_k:
      return delta.keys();
    case Role::delta_v:
    case Role::conv_v:
      return 2 * delta.keys();
    case Role::delta_z:
      return delta.channels();
    case Role::delta_a:
      return delta.num_value_heads;
    case Role::up:
    case Role::up_bias:
      return rows;
    default:
      return 0;
  }
}

Tensor* Loader::tensor_of(const TensorSpec& spec) {
  switch (spec.place.role) {
    case Role::embedding:
      return &out_.embedding;
    case Role::final_norm:
      return &out_.final_norm;
    case Role::lm_head_bias:
      return &out_.lm_head_bias;
    case Role::input_norm:
      return &layer(spec).input_norm;
    case Role::post_attention_norm:
      return &layer(spec).post_attention_norm;
    case Role::q_norm:
      return &layer(spec).q_norm;
    case Role::k_norm:
      return &layer(spec).k_norm;
    case Role::q_bias:
    case Role::k_bias:
    case Role::v_bias:
      return &layer(spec).qkv_bias;
    case Role::output_bias:
      return &layer(spec).output_bias;
    case Role::router:
      return &layer(spec).router;
    case Role::router_bias:
      return &layer(spec).router_bias;
    case Role::gate_bias:
    case Role::up_bias:
      return &mlp(spec).gate_up_bias;
    case Role::down_bias:
      return &mlp(spec).down_bias;
    case Role::shared_gate:
      return &layer(spec).shared_gate;
    case Role::conv_q:
    case Role::conv_k:
    case Role::conv_v:
      return &layer(spec).delta.conv;
    case Role::delta_a_log:
      return &layer(spec).delta.a_log;
    case Role::delta_dt_bias:
      return &layer(spec).delta.dt_bias;
    case Role::delta_norm:
      return &layer(spec).delta.norm;
    default:
      return nullptr;
  }
}

Loader::Rows Loader::rows_of(const TensorSpec& spec) {
  const int64_t row0 = row_of(spec.place.role, spec.rows);
  switch (spec.place.role) {
    case Role::lm_head:
      return {&out_.lm_head, row0};
    case Role::output:
      return {&layer(spec).output, row0};
    case Role::gate:
    case Role::up:
      return {&mlp(spec).gate_up, row0};
    case Role::down:
      return {&mlp(spec).down, row0};
    case Role::delta_q:
    case Role::delta_k:
    case Role::delta_v:
    case Role::delta_z:
      return {&layer(spec).delta.qkvz, row0};
    case Role::delta_b:
    case Role::delta_a:
      return {&layer(spec).delta.ba, row0};
    default:
      return {&layer(spec).qkv, row0};
  }
}

void Loader::make_matrix(const TensorSpec& spec, Matrix& matrix) {
  using Kind = Matrix::Kind;
  const bool experts = spec.place.expert >= 0;
  const char* const mlp = experts                              ? "experts"
                          : spec.place.expert == kSharedExpert ? "shared experts"
                                                               : "dense layers";
  const int64_t count = experts ? shard_.num_slots() : 1;
  const DType dtype = spec.format.dtype;
  const auto make = [&](Kind kind, int64_t rows, int64_t cols, const char* what) {
    matrix = device_.matrix({kind, count, rows, cols, dtype}, what);
  };
  switch (spec.place.role) {
    case Role::lm_head:
      return make(Kind::plain, spec.rows, spec.cols, "LM head");
    case Role::output:
      return make(Kind::plain, spec.rows, part_of_rank(spec, config_, shard_).cols(), "attention");
    case Role::delta_q:
      return make(Kind::plain, shard_.delta(config_).width(), spec.cols, "delta nets");
    case Role::delta_b:
      return make(Kind::plain, 2 * shard_.delta(config_).num_value_heads, spec.cols, "delta nets");
    case Role::gate:
    case Role::up:
      return make(experts ? Kind::expert_gate_up : Kind::gate_up, 2 * spec.rows, spec.cols, mlp);
    case Role::down:
      return make(experts ? Kind::expert_down : Kind::plain, spec.rows, spec.cols, mlp);
    default:
      return make(Kind::plain, shard_.qkv_width(config_), spec.cols, "attention");
  }
}

void Loader::make_room(const TensorSpec& spec) {
  Tensor* const tensor = tensor_of(spec);
  if (!tensor) {
    Matrix& matrix = *rows_of(spec).matrix;
    if (matrix.out_features == 0) make_matrix(spec, matrix);
    return;
  }
  if (tensor->cols > 0) return;
  const DType dtype = spec.format.dtype;
  if (spec.place.role == Role::embedding)
    *tensor = device_.host_tensor(spec.rows, spec.cols, dtype, "embedding");
  else if (spec.place.role == Role::router || spec.place.role == Role::router_bias)
    *tensor = device_.tensor(spec.rows, spec.cols, dtype, "router");
  else if (is_bias_of_qkv(spec.place.role))
    *tensor = device_.tensor(1, shard_.qkv_width(config_), dtype, "attention");
  else if (spec.place.role == Role::gate_bias || spec.place.role == Role::up_bias)
    *tensor = device_.tensor(1, 2 * spec.cols, dtype, "biases");
  else if (spec.place.role == Role::down_bias || spec.place.role == Role::lm_head_bias)
    *tensor = device_.tensor(1, spec.cols, dtype, "biases");
  else if (spec.place.role == Role::conv_q)
    *tensor = device_.tensor(shard_.delta(config_).channels(), spec.cols, dtype, "delta nets");
  else  // which may be cut over ranks as heads are
    *tensor = device_.tensor(spec.rows, part_of_rank(spec, config_, shard_).cols(), dtype, "norms");
}

HostMatrix Loader::with_added(const TensorSpec& spec, const HostMatrix& part) {
  std::vector<float>& values = made_.emplace_back();
  for (int64_t row = 0; row < part.rows; ++row)
    for (int64_t col = 0; col < part.cols; ++col) {
      const int64_t at = row * part.row_stride + col;
      values.push_back(spec.added + (part.data ? load_float(part.data, part.dtype, at)
                                               : dummy_weight(part.dummy, part.dummy.first + at)));
    }
  return {.data = values.data(),
          .dtype = DType::float32,
          .rows = part.rows,
          .cols = part.cols,
          .row_stride = part.cols};
}

void Loader::load(const TensorSpec& spec, int64_t slot, const WeightSource& source,
                  const LoadProgress& progress) {
  HostMatrix part = part_of(source.get(spec), part_of_rank(spec, config_, shard_));
  refuse_nan(part, spec.drawn_as);
  const WeightFormat stored{part.dtype};
  if (spec.added != 0) part = with_added(spec, part);
  if (const Tensor* const tensor = tensor_of(spec)) {
    int64_t first = row_of(spec.place.role, spec.cols);  // a vector's columns
    if (tensor->rows > 1) first *= tensor->cols;
    const Tensor room{static_cast<char*>(tensor->data) + static_cast<size_t>(first) * size_of(tensor->dtype),
                      tensor->dtype, part.rows, part.cols};
    device_.load(room, 0, part);
  } else {
    const Rows rows = rows_of(spec);
    device_.load(*rows.matrix, slot, rows.row0, part);
  }
  if (!progress) return;
  progress(static_cast<uint64_t>(stored.bytes(part.rows, part.cols)));
}

}  // namespace

Weights load_weights(Device& device, const ModelConfig& config, const ModelShard& shard,
                     const WeightSource& source, const LoadProgress& progress) {
  Weights weights;
  weights.layers.resize(static_cast<size_t>(config.num_hidden_layers));
  for (size_t i = 0; i < weights.layers.size(); ++i) weights.layers[i].sparse = config.sparse[i];
  const std::vector<KeyValueScale> scales = source.key_value_scales(config);
  for (size_t i = 0; i < scales.size(); ++i) weights.layers[i].kv_scale = scales[i];
  Loader loader(device, config, shard, weights);
  for (const TensorSpec& spec : tensors_of(config, device.dtype())) {
    loader.make_room(spec);
    if (spec.place.expert < 0)
      loader.load(spec, 0, source, progress);
    else if (shard.is_home(spec.place.expert))
      loader.load(spec, shard.local_slot[static_cast<size_t>(spec.place.expert)], source, progress);
  }
  device.synchronize();
  return weights;
}

void load_experts(Device& device, const ModelConfig& config, const WeightSource& source, Weights& weights,
                  std::span<const ExpertPlace> places, const LoadProgress& progress) {
  // A copy is whole wherever it goes, as at home.
  ModelShard everywhere;
  everywhere.local_slot.assign(static_cast<size_t>(config.num_experts), 0);
  Loader loader(device, config, everywhere, weights);
  const std::vector<TensorSpec> tensors = tensors_of(config, device.dtype());
  for (const ExpertPlace& place : places)
    for (const TensorSpec& spec : tensors)
      if (spec.place.expert == place.expert && spec.place.layer == place.layer)
        loader.load(spec, place.slot, source, progress);
  device.synchronize();
}

}  // namespace moerun
