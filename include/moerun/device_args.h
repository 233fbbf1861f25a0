#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "moerun/delta_net.h"
#include "moerun/dtype.h"
#include "moerun/dummy.h"
#include "moerun/error.h"
#include "moerun/fp8.h"
#include "moerun/half.h"
#include "moerun/plan.h"
#include "moerun/router_rule.h"

namespace moerun {

/// A row-major matrix in device memory; not owning. `rows` may be smaller than what was allocated: buffers
/// are made once for the largest step.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::float32;
  int64_t rows = 0, cols = 0;

  size_t bytes() const { return static_cast<size_t>(rows * cols) * size_of(dtype); }
  size_t row_bytes() const { return static_cast<size_t>(cols) * size_of(dtype); }
  Tensor first(int64_t n) const { return slice(0, n); }
  Tensor slice(int64_t begin, int64_t end) const {
    return {static_cast<char*>(data) + static_cast<size_t>(begin) * row_bytes(), dtype, end - begin, cols};
  }
};

/// int32 values in device memory; not owning.
struct Ints {
  int32_t* data = nullptr;
  int64_t size = 0;
};

/// The scales of a part whose dtype is e4m3, as its checkpoint stores them: blocks of weights share one. A
/// scale for each output row is a block of one row and all columns.
struct HostScales {
  const void* data = nullptr;  ///< of the whole tensor [.., stride]; null: every scale is `value`
  DType dtype = DType::float32;
  int64_t block_rows = 0, block_cols = 0;  ///< weights of a block; block_cols is a multiple of kScaleGroup
  int64_t stride = 0;                      ///< scales between rows of blocks
  int64_t row0 = 0, col0 = 0;  ///< where in the whole tensor the part begins; col0 is one of a group
  float value = 1;

  /// Of an element of the part.
  float at(int64_t row, int64_t col) const {
    if (!data) return value;
    return load_float(data, dtype, (row0 + row) / block_rows * stride + (col0 + col) / block_cols);
  }
};

/// Rows of a checkpoint tensor in host memory (usually a memory-mapped file), or rows of dummy weights that
/// the device makes itself.
struct HostMatrix {
  const void* data = nullptr;  ///< first wanted element; null: `dummy` says what each element is
  DType dtype = DType::float32;
  int64_t rows = 0, cols = 0;
  int64_t row_stride = 0;  ///< elements between rows: a column shard of a wider matrix has row_stride > cols
  /// Without data: element (r, c) is dummy_weight(dummy, dummy.first + r·row_stride + c), rounded to the
  /// dtype of what it is loaded into.
  DummyWeights dummy;
  HostScales scales;  ///< of dtype e4m3
};

/// What comes to the host: the first `row_bytes` of each of `rows` rows, which are `stride` bytes apart in
/// the device's memory and close together in the host's.
struct HostCopy {
  void* host = nullptr;  ///< of host_tensor
  const void* device = nullptr;
  int64_t rows = 0;
  size_t row_bytes = 0, stride = 0;
};

/// The weight of `count` linear maps y = x·Wᵀ, W [out_features, in_features], in the device's own packing
/// (each device's business). gate_up kinds: out_features = 2·I, of which `load` fills gate rows [0, I) and up
/// rows [I, 2·I); the device may interleave them. The expert kinds are for expert_ffn, the others for linear.
struct Matrix {
  enum class Kind { plain, gate_up, expert_gate_up, expert_down } kind = Kind::plain;
  void* data = nullptr;
  int64_t count = 1, out_features = 0, in_features = 0;
  DType dtype = DType::float32;  ///< Device::dtype(), or e4m3: products as moerun/fp8.h says
  /// Of e4m3: float32 for each of the `count` maps, rows and groups of kScaleGroup along K, in the device's
  /// own order; null where they lie among the values.
  float* scales = nullptr;

  bool is_gate_up() const { return kind == Kind::gate_up || kind == Kind::expert_gate_up; }
  bool is_fp8() const { return dtype == DType::e4m3; }
};

/// What Device::matrix makes room for: members as of Matrix.
struct MatrixShape {
  Matrix::Kind kind = Matrix::Kind::plain;
  int64_t count = 1, out_features = 0, in_features = 0;
  DType dtype = DType::float32;
};

/// Which experts of a layer are here: `local_slot[e]` is expert e's index in this rank's expert matrices, −1
/// when it is elsewhere. With redundant experts also which rank computes an expert in each of its turns
/// (moerun/expert_turn.h); without them both are empty and an expert's home computes it. The device memory
/// stays where it is when copies are placed, so that CUDA graphs may name it.
struct ExpertSlots {
  Ints local_slot;                         ///< [num_experts] in device memory
  std::vector<int32_t> host_local_slot;    ///< the same, for the host
  Ints rank_of_turn;                       ///< [num_experts, kExpertTurns] in device memory, or empty
  std::vector<int32_t> host_rank_of_turn;  ///< the same, for the host
  int64_t num_local = 0;                   ///< slots, also those that hold no copy yet
};

/// Tokens with the experts that they were routed to. Ids of a token need not be sorted. What arrives from an
/// exchange may name experts that are not computed here: as −1, or, where they tell which local ones may be
/// added to each other, as `elsewhere(id)` (moerun/expert_tree.h) or by the id of an expert that ExpertSlots
/// does not have.
struct Routed {
  Tensor x;             ///< [n, hidden]
  Ints topk_ids;        ///< [n, num_experts_per_tok] global expert ids; negative: not computed here
  Tensor topk_weights;  ///< [n, num_experts_per_tok] float32
  const ExpertSlots* slots = nullptr;  ///< of the layer; an exchange asks it who computes an expert
};

/// A step's plan in device memory, as the ops take it. Sizes are on the host.
struct DevicePlan {
  /// A device whose recorded graphs depend on max_context_len rounds it up to a multiple of this, also beyond
  /// max_model_len.
  static constexpr int32_t kContextStep = 1024;

  Ints tokens, positions, slot_mapping, cu_seqlens_q, context_lens, block_table;
  int32_t num_tokens = 0, num_seqs = 0, num_prefill_seqs = 0, max_blocks = 0;
  // Only the CUDA device, which chooses grids by them, fills these in:
  int32_t max_context_len = 0, max_query_len = 0;
  int64_t prefill_pairs = 0;      ///< of a prefilling sequence's token and a key that it attends to
  int64_t decode_keys = 0;        ///< that the decoding sequences attend to
  Ints state_slots, state_saves;  ///< of StepPlan; on the host where the device is
};

/// The keys and values of one layer: each [num_blocks, num_key_value_heads, block_size, head_dim], in the
/// device's dtype, or in e4m3: rounded to the nearest, without a scale, saturated at ±448.
struct KvLayer {
  Tensor k, v;
  int32_t num_kv_heads = 0, block_size = 0, head_dim = 0;
  /// Of a cache in e4m3: keys and values are divided by these (float32, rounded to nearest) before they are
  /// rounded, and attention multiplies its scores and its sums by them. 1 for other caches.
  float k_scale = 1, v_scale = 1;
};

/// The states of a layer with a gated delta net.
struct DeltaState {
  DeltaShape shape;  ///< of this rank
  /// [slots·(conv_width − 1), channels] of the device's dtype: what the convolution takes of earlier
  /// positions, the oldest first.
  Tensor conv;
  Tensor memory;  ///< [slots·num_value_heads·key_dim, value_dim] float32

  /// Rows of both that one slot has.
  int64_t conv_rows() const { return shape.conv_width - 1; }
  int64_t memory_rows() const { return shape.num_value_heads * shape.key_dim; }
};

struct DeltaConvArgs {
  Tensor qkvz, ba;  ///< [n, shape.width()] and [n, 2·value heads]: what was projected (DeltaColumns)
  Tensor
      weight;  ///< [channels, conv_width]: queries, keys, values; the last column is of the position itself
  Tensor a_log, dt_bias;  ///< [1, value heads] float32
  DeltaState state;       ///< `conv` in and out, by plan.state_slots
  Tensor qkv;             ///< [n, channels] out: silu of the convolution
  Tensor gates;  ///< [n, 2·value heads] float32 out: log decays −exp(a_log)·softplus(a + dt_bias), then σ(b)
};

struct DeltaRuleArgs {
  Tensor qkv, gates;  ///< of delta_conv; queries and keys of length 1 are made here
  DeltaState state;   ///< `memory` in and out
  Tensor out;         ///< [n, value heads·value_dim]
};

struct DeltaNormArgs {
  Tensor x;       ///< [n, value heads·value_dim] in and out: each head normed, times weight and silu(z)
  Tensor qkvz;    ///< whose z it is gated by
  Tensor weight;  ///< [1, value_dim]
  DeltaShape shape;
  float eps = 0;
};

struct GateHeadsArgs {
  Tensor qkv;    ///< as RopeArgs::qkv with `gated`
  Tensor heads;  ///< [n, heads·head_dim] in and out: times the sigmoid of each head's gate
  int32_t head_dim = 0;
};

struct RopeArgs {
  Tensor qkv;          ///< [n, (heads + 2·kv_heads)·head_dim] in
  bool gated = false;  ///< behind each query head in qkv is its gate (gate_heads), of as many elements
  /// [1, head_dim] RMSNorm weights for each head, or with `scales` [1, heads·head_dim] and
  /// [1, kv_heads·head_dim], an element each; both without data: no norm.
  Tensor q_norm, k_norm;
  Tensor scales;             ///< [n, 2] float32 of qk_scales: the norm is over all heads together
  Tensor cos, sin;           ///< [max_model_len, rotated elements / 2] float32, attention factor folded in
  bool interleaved = false;  ///< which elements rotate into each other: RopeConfig::interleaved
  Tensor q;                  ///< [n, heads·head_dim] out: normed, rotated
  KvLayer kv;                ///< out: normed, rotated keys and plain values at slot_mapping
  int32_t num_heads = 0;
  float eps = 0;
};

/// RMSNorm over all heads together, also where ranks hold some heads each.
struct QkScalesArgs {
  /// [tensor·n, heads + kv_heads of a rank] float32: every rank's sums of head_squares, in rank order.
  Tensor squares;
  int32_t tensor = 1;                       ///< ranks
  int32_t num_heads = 0, num_kv_heads = 0;  ///< of the model; key heads may be on several ranks each
  int32_t head_dim = 0;
  float eps = 0;
  Tensor out;  ///< [n, 2] float32: 1/√(mean square + eps) of queries and of keys, heads ascending
};

struct AttentionArgs {
  Tensor q;  ///< [n, heads·head_dim]
  KvLayer kv;
  Tensor out;  ///< [n, heads·head_dim]
  int32_t num_heads = 0;
  float scale = 0;  ///< 1/√head_dim
};

struct RouterArgs {
  Tensor x;     ///< [n, hidden]
  Tensor gate;  ///< [num_experts, hidden], of x's dtype or float32
  Tensor bias;  ///< [1, num_experts] float32, added to scores where experts are chosen; without data: none
  int32_t num_experts_per_tok = 0;
  RouterRule rule;
  Ints topk_ids;        ///< [n, k] out, best first, ties by index
  Tensor topk_weights;  ///< [n, k] float32 out
};

/// What add_rms_norm takes, alone or after what makes `delta`.
struct AddRmsNormArgs {
  Tensor residual;  ///< [n, cols] in and out
  Tensor delta;     ///< [n, cols]; undefined after an operation that makes it and norms in one pass
  Tensor weight;    ///< [1, cols]
  float eps = 0;
  Tensor out;  ///< [n, cols]
};

/// The expert that every token takes, added to those it was routed to.
struct AddSharedArgs {
  Tensor y;     ///< [n, hidden] its output
  Tensor x;     ///< [n, hidden] what it was computed from
  Tensor gate;  ///< [1, hidden]: y counts σ(x·gate) times; without data: once
  Tensor sums;  ///< [n, hidden] in and out
};

struct ExpertFfnArgs {
  Routed in;
  const Matrix* gate_up = nullptr;  ///< [num_local, 2·I, hidden]
  const Matrix* down = nullptr;     ///< [num_local, hidden, I]
  const ExpertSlots* slots = nullptr;
  Tensor out;            ///< [num_partials, hidden], or [n · k, hidden] with `pairs`
  Ints partial_offsets;  ///< [n + 1] host-visible on the CPU; empty: one partial a token (`partials == n`)
  bool pairs = false;    ///< no sums: weight·y of each pair to its own row; rows of other pairs stay
  uint64_t* expert_tokens =
      nullptr;  ///< optional, [num_experts] in device memory: += tokens of local experts
};

}  // namespace moerun
