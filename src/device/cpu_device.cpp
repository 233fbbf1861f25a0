#include "device/cpu_device.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "device/host_slots.h"
#include "device/memory_uses.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/delta_net.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gemm_fp8.h"
#include "kernels/cpu/moe.h"
#include "kernels/cpu/rope.h"
#include "kernels/cpu/router.h"
#include "kernels/cpu/sample.h"
#include "moerun/error.h"
#include "moerun/half.h"

namespace moerun {

namespace {

constexpr size_t kAlignment = 64;

float* floats(const Tensor& tensor) {
  if (tensor.dtype != DType::float32)
    throw Error("the CPU device computes in float32 alone");  // a caller's mistake, not a user's
  return static_cast<float*>(tensor.data);
}

/// Whether keys and values are in e4m3; they are in float32 otherwise.
bool is_fp8(const KvLayer& kv) {
  if (kv.k.dtype != DType::e4m3) floats(kv.k);
  return kv.k.dtype == DType::e4m3;
}

float value_of(const HostMatrix& part, int64_t row, int64_t col) {
  const int64_t at = row * part.row_stride + col;
  return part.data ? load_float(part.data, part.dtype, at) : dummy_weight(part.dummy, part.dummy.first + at);
}

class CpuDevice : public Device {
 public:
  explicit CpuDevice(const CpuOptions& options) : options_(options) {
    // More threads than processors would wait for each other at every loop's end.
    if (std::getenv("OMP_NUM_THREADS") == nullptr)
      omp_set_num_threads(std::max(1, omp_get_num_procs() / std::max(options.num_sharers, 1)));
  }

  std::string name() const override { return "CPU"; }
  DType dtype() const override { return DType::float32; }
  bool host_memory() const override { return true; }

  void* allocate(size_t bytes, const char* what) override {
    const size_t rounded = std::max((bytes + kAlignment - 1) / kAlignment, size_t{1}) * kAlignment;
    void* const memory = std::aligned_alloc(kAlignment, rounded);
    if (!memory) throw Error(fmt::format("no memory for {} ({} bytes)", what, bytes));
    blocks_.emplace_back(memory, &std::free);
    uses_.add(what, bytes);
    return memory;
  }

  Matrix matrix(const MatrixShape& shape, const char* what) override {
    Matrix out{shape.kind, nullptr, shape.count, shape.out_features, shape.in_features, shape.dtype};
    const auto zeros = [&](int64_t bytes) {  // the padding of the last panel is multiplied
      void* const data = allocate(static_cast<size_t>(bytes), what);
      std::memset(data, 0, static_cast<size_t>(bytes));
      return data;
    };
    const int64_t values = shape.count * cpu::packed_floats(shape.out_features, shape.in_features);
    out.data = zeros(values * static_cast<int64_t>(size_of(shape.dtype)));
    if (out.is_fp8())
      out.scales = static_cast<float*>(
          zeros(shape.count * cpu::fp8_scales(shape.out_features, shape.in_features) * 4));
    return out;
  }

  void load(const Matrix& matrix, int64_t index, int64_t row0, const HostMatrix& part) override {
    if (matrix.is_fp8() != (part.dtype == DType::e4m3))  // a caller's mistake, not a user's
      throw Error("weights in e4m3 belong in a matrix of e4m3, and no others");
    if (matrix.is_fp8()) load_scales(matrix, index, row0, part);
    char* const packed = static_cast<char*>(matrix.data) +
                         index * cpu::packed_floats(matrix.out_features, matrix.in_features) *
                             static_cast<int64_t>(size_of(matrix.dtype));
    for (int64_t row = 0; row < part.rows; ++row)
      for (int64_t col = 0; col < part.cols; ++col)
        store_float(packed, matrix.dtype, cpu::packed_offset(row0 + row, col, matrix.in_features),
                    value_of(part, row, col));
  }

  void load(const Tensor& tensor, int64_t row0, const HostMatrix& part) override {
    for (int64_t row = 0; row < part.rows; ++row)
      for (int64_t col = 0; col < part.cols; ++col)
        store_float(tensor.data, tensor.dtype, (row0 + row) * tensor.cols + col, value_of(part, row, col));
  }

  size_t free_bytes() const override { return options_.kv_bytes; }
  void copy_to_device(void* device, const void* host, size_t bytes) override {
    std::memcpy(device, host, bytes);
  }
  void copy_to_host(void* host, const void* device, size_t bytes) override {
    std::memcpy(host, device, bytes);
  }
  void begin_copy_to_host(const HostCopy& copy) override {
    for (int64_t row = 0; row < copy.rows; ++row)
      std::memcpy(static_cast<char*>(copy.host) + static_cast<size_t>(row) * copy.row_bytes,
                  static_cast<const char*>(copy.device) + static_cast<size_t>(row) * copy.stride,
                  copy.row_bytes);
  }
  void synchronize() override {}
  std::vector<MemoryUse> memory_table() const override { return uses_.table(); }

  void swap_blocks(std::span<const KvLayer> cache, std::span<const int32_t> pairs, Swap way) override {
    std::vector<Tensor> parts;
    for (size_t i = 0; i < pairs.size(); i += 2) {
      parts.clear();
      for (const KvLayer& layer : cache)
        for (const Tensor& half : {layer.k, layer.v}) {
          const int64_t rows = int64_t{layer.num_kv_heads} * layer.block_size;
          parts.push_back(half.slice(pairs[i] * rows, (pairs[i] + 1) * rows));
        }
      host_blocks_.swap(pairs[i + 1], parts, way);
    }
  }

  void copy_rows(std::span<const KvLayer> cache, std::span<const int32_t> copies) override {
    for (size_t i = 0; i < copies.size(); i += 3)
      for (const KvLayer& layer : cache)
        for (const Tensor& half : {layer.k, layer.v})
          for (int64_t head = 0; head < layer.num_kv_heads; ++head) {
            const auto row_of = [&](int32_t block) {
              return (int64_t{block} * layer.num_kv_heads + head) * layer.block_size;
            };
            const int64_t from = row_of(copies[i]), to = row_of(copies[i + 1]);
            const Tensor rows = half.slice(from, from + copies[i + 2]);
            std::memcpy(half.slice(to, to + copies[i + 2]).data, rows.data, rows.bytes());
          }
  }

  DevicePlan upload(const StepPlan& plan) override {
    plan_ = plan;
    const auto ints = [](std::vector<int32_t>& values) {
      return Ints{values.data(), static_cast<int64_t>(values.size())};
    };
    DevicePlan out{.tokens = ints(plan_.tokens),
                   .positions = ints(plan_.positions),
                   .slot_mapping = ints(plan_.slot_mapping),
                   .cu_seqlens_q = ints(plan_.cu_seqlens_q),
                   .context_lens = ints(plan_.context_lens),
                   .block_table = ints(plan_.block_table),
                   .num_tokens = plan.num_tokens(),
                   .num_seqs = plan.num_seqs(),
                   .num_prefill_seqs = plan.num_prefill_seqs,
                   .max_blocks = plan.max_blocks,
                   .state_slots = ints(plan_.state_slots),
                   .state_saves = ints(plan_.state_saves)};
    return out;
  }

  void embed(const Tensor& table, Ints tokens, Tensor out) override {
    for (int64_t i = 0; i < out.rows; ++i)
      std::copy_n(floats(table) + tokens.data[i] * table.cols, table.cols, floats(out) + i * table.cols);
  }

  void rms_norm(Tensor x, const Tensor& weight, float eps, Tensor out) override {
    cpu::rms_norm(floats(x), floats(weight), eps, x.rows, x.cols, floats(out));
  }

  void add_rms_norm(const AddRmsNormArgs& args) override {
    cpu::add(floats(args.residual), floats(args.delta), args.residual.rows * args.residual.cols);
    rms_norm(args.residual, args.weight, args.eps, args.out);
  }

  void linear(Tensor x, const Matrix& w, const Tensor* bias, Tensor out) override {
    if (w.is_fp8()) cpu::quantise_rows(floats(x), x.rows, x.cols, quantised_);
    product(x, w, 0, w.in_features, floats(out));
    if (bias) add_bias(out, *bias);
  }

  void add_bias(Tensor x, const Tensor& bias) override {
    for (int64_t row = 0; row < x.rows; ++row) cpu::add(floats(x) + row * x.cols, floats(bias), x.cols);
  }

  void linear_tree(Tensor x, const Matrix& w, int32_t chunks, Tensor out) override {
    if (chunks == 1) return linear(x, w, nullptr, out);
    if (w.in_features % chunks != 0 || (w.is_fp8() && w.in_features / chunks % kScaleGroup != 0))
      throw Error(fmt::format("{} columns do not divide into {} chunks", w.in_features, chunks));
    const int64_t count = out.rows * out.cols, width = w.in_features / chunks;
    parts_.resize(static_cast<size_t>(count * chunks));
    if (w.is_fp8()) cpu::quantise_rows(floats(x), x.rows, x.cols, quantised_);
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
      product(x, w, chunk * width, (chunk + 1) * width, parts_.data() + chunk * count);
    cpu::tree_sum(parts_.data(), chunks, count, floats(out));
  }

  void rope_and_cache(const DevicePlan& plan, const RopeArgs& args) override {
    cpu::rope_cache({.qkv = floats(args.qkv),
                     .gated = args.gated,
                     .q_norm = floats(args.q_norm),
                     .k_norm = floats(args.k_norm),
                     .scales = floats(args.scales),
                     .cos = floats(args.cos),
                     .sin = floats(args.sin),
                     .positions = plan.positions.data,
                     .slot_mapping = plan.slot_mapping.data,
                     .q = floats(args.q),
                     .k_cache = args.kv.k.data,
                     .v_cache = args.kv.v.data,
                     .fp8 = is_fp8(args.kv),
                     .k_scale = args.kv.k_scale,
                     .v_scale = args.kv.v_scale,
                     .n = plan.num_tokens,
                     .heads = args.num_heads,
                     .kv_heads = args.kv.num_kv_heads,
                     .head_dim = args.kv.head_dim,
                     .block_size = args.kv.block_size,
                     .rotated = 2 * args.cos.cols,
                     .interleaved = args.interleaved,
                     .eps = args.eps});
  }

  void head_squares(Tensor qkv, int32_t head_dim, Tensor out) override {
    cpu::head_squares(floats(qkv), out.rows, qkv.cols, out.cols, head_dim, floats(out));
  }

  void qk_scales(const QkScalesArgs& args) override {
    cpu::qk_scales({.squares = floats(args.squares),
                    .n = args.out.rows,
                    .tensor = args.tensor,
                    .heads = args.num_heads,
                    .kv_heads = args.num_kv_heads,
                    .head_dim = args.head_dim,
                    .eps = args.eps,
                    .out = floats(args.out)});
  }

  void attention(const DevicePlan& plan, const AttentionArgs& args) override {
    cpu::attention({.q = floats(args.q),
                    .k_cache = args.kv.k.data,
                    .v_cache = args.kv.v.data,
                    .fp8 = is_fp8(args.kv),
                    .cu_seqlens_q = plan.cu_seqlens_q.data,
                    .context_lens = plan.context_lens.data,
                    .block_table = plan.block_table.data,
                    .out = floats(args.out),
                    .num_seqs = plan.num_seqs,
                    .max_blocks = plan.max_blocks,
                    .heads = args.num_heads,
                    .kv_heads = args.kv.num_kv_heads,
                    .head_dim = args.kv.head_dim,
                    .block_size = args.kv.block_size,
                    .scale = args.scale * args.kv.k_scale,
                    .v_scale = args.kv.v_scale});
  }

  void gate_heads(const GateHeadsArgs& args) override {
    cpu::gate_heads(floats(args.qkv), args.qkv.cols, args.heads.rows, args.heads.cols / args.head_dim,
                    args.head_dim, floats(args.heads));
  }

  void swap_states(std::span<const DeltaState> states, std::span<const int32_t> pairs, Swap way) override {
    std::vector<Tensor> parts;
    for (size_t i = 0; i < pairs.size(); i += 2) {
      parts.clear();
      for (const DeltaState& state : states)
        for (const Tensor& part : slot_of(state, pairs[i])) parts.push_back(part);
      host_states_.swap(pairs[i + 1], parts, way);
    }
  }

  void copy_states(std::span<const DeltaState> states, std::span<const int32_t> pairs) override {
    for (size_t i = 0; i < pairs.size(); i += 2)
      for (const DeltaState& state : states) {
        const auto from = slot_of(state, pairs[i]), to = slot_of(state, pairs[i + 1]);
        for (size_t part = 0; part < from.size(); ++part)
          std::memcpy(to[part].data, from[part].data, from[part].bytes());
      }
  }

  void delta_conv(const DevicePlan& plan, const DeltaConvArgs& args) override {
    cpu::delta_conv(delta_plan(plan), {.shape = args.state.shape,
                                       .qkvz = floats(args.qkvz),
                                       .ba = floats(args.ba),
                                       .weight = floats(args.weight),
                                       .a_log = floats(args.a_log),
                                       .dt_bias = floats(args.dt_bias),
                                       .state = floats(args.state.conv),
                                       .qkv = floats(args.qkv),
                                       .gates = floats(args.gates)});
  }

  void delta_rule(const DevicePlan& plan, const DeltaRuleArgs& args) override {
    cpu::delta_rule(delta_plan(plan), {.shape = args.state.shape,
                                       .qkv = floats(args.qkv),
                                       .gates = floats(args.gates),
                                       .state = floats(args.state.memory),
                                       .out = floats(args.out)});
  }

  void delta_norm(const DeltaNormArgs& args) override {
    cpu::delta_norm({.shape = args.shape,
                     .x = floats(args.x),
                     .qkvz = floats(args.qkvz),
                     .weight = floats(args.weight),
                     .n = args.x.rows,
                     .eps = args.eps});
  }

  void silu_mul(Tensor gate_up, Tensor out) override {
    cpu::silu_mul(floats(gate_up), out.rows, out.cols, floats(out));
  }

  void router(const RouterArgs& args) override {
    cpu::router({.x = floats(args.x),
                 .gate = floats(args.gate),
                 .bias = floats(args.bias),
                 .n = args.x.rows,
                 .hidden = args.x.cols,
                 .experts = args.gate.rows,
                 .k = args.num_experts_per_tok,
                 .rule = args.rule,
                 .ids = args.topk_ids.data,
                 .weights = floats(args.topk_weights)});
  }

  void expert_ffn(const ExpertFfnArgs& args) override {
    cpu::expert_ffn({.x = floats(args.in.x),
                     .ids = args.in.topk_ids.data,
                     .weights = floats(args.in.topk_weights),
                     .gate_up = expert_weights(*args.gate_up),
                     .down = expert_weights(*args.down),
                     .local_slot = args.slots->host_local_slot.data(),
                     .n = args.in.x.rows,
                     .k = args.in.topk_weights.cols,
                     .hidden = args.in.x.cols,
                     .width = args.down->in_features,
                     .num_local = args.slots->num_local,
                     .out = floats(args.out),
                     .partial_offsets = args.partial_offsets.data,
                     .pairs = args.pairs,
                     .expert_tokens = args.expert_tokens},
                    expert_scratch_);
  }

  void add_shared(const AddSharedArgs& args) override {
    cpu::add_shared({.y = floats(args.y),
                     .x = floats(args.x),
                     .gate = floats(args.gate),
                     .sums = floats(args.sums),
                     .n = args.sums.rows,
                     .hidden = args.sums.cols});
  }

  void gather_rows(Tensor x, std::span<const int32_t> rows, Tensor out) override {
    for (size_t i = 0; i < rows.size(); ++i)
      std::memcpy(static_cast<char*>(out.data) + i * out.row_bytes(), x.slice(rows[i], rows[i] + 1).data,
                  out.row_bytes());
  }

  void tree_sum(Tensor shards, int32_t num_shards, Tensor out) override {
    cpu::tree_sum(floats(shards), num_shards, out.rows * out.cols, floats(out));
  }

  std::vector<TokenResult> sample(Tensor logits, std::span<const LogitRow> rows,
                                  const StepPlan& plan) override {
    std::vector<TokenResult> results(rows.size());
#pragma omp parallel for schedule(dynamic)
    for (size_t i = 0; i < rows.size(); ++i)
      results[i] =
          cpu::sample(floats(logits) + static_cast<int64_t>(i) * logits.cols, logits.cols, rows[i], plan);
    return results;
  }

 private:
  /// Columns [k_begin, k_end) of x and W; `quantised_` is x where W is in e4m3.
  void product(const Tensor& x, const Matrix& w, int64_t k_begin, int64_t k_end, float* out) const {
    if (w.is_fp8())
      return cpu::gemm_fp8({.x = &quantised_,
                            .m = x.rows,
                            .w = fp8_weight(w),
                            .n = w.out_features,
                            .in_features = w.in_features,
                            .k_begin = k_begin,
                            .k_end = k_end,
                            .out = out});
    cpu::gemm({.x = floats(x),
               .ldx = x.cols,
               .m = x.rows,
               .w = static_cast<const float*>(w.data),
               .n = w.out_features,
               .in_features = w.in_features,
               .k_begin = k_begin,
               .k_end = k_end,
               .out = out,
               .ldo = w.out_features});
  }

  /// What a slot has of a layer.
  static std::array<Tensor, 2> slot_of(const DeltaState& state, int32_t slot) {
    const auto part = [&](const Tensor& of, int64_t rows) {
      return of.slice(slot * rows, (slot + 1) * rows);
    };
    return {part(state.conv, state.conv_rows()), part(state.memory, state.memory_rows())};
  }
  static cpu::DeltaPlan delta_plan(const DevicePlan& plan) {
    return {.cu_seqlens = plan.cu_seqlens_q.data,
            .context_lens = plan.context_lens.data,
            .slots = plan.state_slots.data,
            .num_seqs = plan.num_seqs,
            .num_prefill_seqs = plan.num_prefill_seqs,
            .saves = plan.state_saves.data,
            .num_saves = plan.state_saves.size / 3};
  }
  static cpu::Fp8Weight fp8_weight(const Matrix& w) {
    return {static_cast<const uint8_t*>(w.data), w.scales};
  }
  static cpu::ExpertWeights expert_weights(const Matrix& w) {
    if (w.is_fp8()) return {.fp8 = fp8_weight(w)};
    return {.floats = static_cast<const float*>(w.data)};
  }
  static void load_scales(const Matrix& matrix, int64_t index, int64_t row0, const HostMatrix& part) {
    float* const scales = matrix.scales + index * cpu::fp8_scales(matrix.out_features, matrix.in_features);
    for (int64_t row = 0; row < part.rows; ++row)
      for (int64_t group = 0; group < scale_groups(part.cols); ++group)
        scales[cpu::fp8_scale_offset(row0 + row, group, matrix.in_features)] =
            part.scales.at(row, group * kScaleGroup);
  }

  CpuOptions options_;
  std::vector<std::unique_ptr<void, decltype(&std::free)>> blocks_;
  MemoryUses uses_;
  HostSlots host_blocks_, host_states_;  // of preempted sequences
  StepPlan plan_;                        // the step's, which DevicePlan points into
  std::vector<float> parts_;             // linear_tree's chunks [chunks, rows, out_features]
  cpu::QuantisedRows quantised_;         // x of the product at hand
  cpu::ExpertFfnScratch expert_scratch_;
};

}  // namespace

std::unique_ptr<Device> make_cpu_device(const CpuOptions& options) {
  return std::make_unique<CpuDevice>(options);
}

}  // namespace moerun
