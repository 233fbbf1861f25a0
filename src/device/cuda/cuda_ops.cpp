// The operations of the CUDA device: each checks what it is given and launches kernels on the device's
// stream.
#include <algorithm>

#include "device/cuda/cuda_device.h"
#include "kernels/cuda/delta_net.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/fp8_grouped_gemm.h"
#include "kernels/cuda/gather_rows.h"
#include "kernels/cuda/grouped_gemm.h"
#include "kernels/cuda/moe_combine.h"
#include "kernels/cuda/norms.h"
#include "kernels/cuda/qk_norm.h"
#include "kernels/cuda/rope_cache.h"
#include "kernels/cuda/router.h"
#include "kernels/cuda/shared_expert.h"
#include "kernels/cuda/tree_gemm.h"
#include "kernels/cuda/tree_gemm_tiling.h"

namespace moerun {

CudaWorkspace& CudaDevice::workspace() {
  if (!workspace_)
    throw Error("the CUDA device was asked for an operation before its workspace was reserved");
  return *workspace_;
}

void CudaDevice::reserve(const StepLimits& limits) {
  workspace_ = std::make_unique<CudaWorkspace>(*arena_, stream_, wait_, dtype(), limits);
  if (fp8_weights_) reserve_fp8();
}

void CudaDevice::reserve_fp8() {
  if (workspace_->fp8) return;
  workspace_->fp8 = std::make_unique<Fp8Products>(*arena_, stream_, dtype(), properties_.multiProcessorCount,
                                                  workspace_->limits);
}

void CudaDevice::swap_blocks(std::span<const KvLayer> cache, std::span<const int32_t> pairs, Swap way) {
  workspace().swap_space.swap(cache, pairs, way);
}

void CudaDevice::copy_rows(std::span<const KvLayer> cache, std::span<const int32_t> copies) {
  workspace().row_copies.copy(cache, copies);
}

DevicePlan CudaDevice::upload(const StepPlan& plan) { return workspace().plans.upload(plan); }

void CudaDevice::embed(const Tensor& table, Ints tokens, Tensor out) {
  launch_gather_rows({.src = table.data,
                      .indices = tokens.data,
                      .out = out.data,
                      .rows = out.rows,
                      .row_bytes = static_cast<int64_t>(table.row_bytes())},
                     stream_);
}

void CudaDevice::gather_rows(Tensor x, std::span<const int32_t> rows, Tensor out) {
  launch_gather_rows({.src = x.data,
                      .indices = workspace().indices.upload(rows),
                      .out = out.data,
                      .rows = static_cast<int64_t>(rows.size()),
                      .row_bytes = static_cast<int64_t>(x.row_bytes())},
                     stream_);
}

void CudaDevice::rms_norm(Tensor x, const Tensor& weight, float eps, Tensor out) {
  launch_rms_norm({.dtype = dtype(),
                   .x = x.data,
                   .weight = weight.data,
                   .float32_weight = weight.dtype == DType::float32,
                   .out = out.data,
                   .rows = x.rows,
                   .cols = static_cast<int32_t>(x.cols),
                   .eps = eps},
                  stream_);
}

void CudaDevice::add_rms_norm(const AddRmsNormArgs& args) {
  launch_rms_norm({.dtype = dtype(),
                   .x = args.delta.data,
                   .residual = args.residual.data,
                   .weight = args.weight.data,
                   .float32_weight = args.weight.dtype == DType::float32,
                   .out = args.out.data,
                   .rows = args.residual.rows,
                   .cols = static_cast<int32_t>(args.residual.cols),
                   .eps = args.eps},
                  stream_);
}

void CudaDevice::linear(Tensor x, const Matrix& w, const Tensor* bias, Tensor out) {
  if (w.is_fp8()) return workspace().fp8->linear(x, w, bias, out);
  workspace().products.run({.x = x.data,
                            .w = w.data,
                            .bias = bias ? bias->data : nullptr,
                            .out = out.data,
                            .out_dtype = out.dtype,
                            .rows = x.rows,
                            .out_features = w.out_features,
                            .in_features = w.in_features});
}

void CudaDevice::linear_in_parts(Tensor x, const Matrix& w, int32_t chunks,
                                 const std::function<void(int64_t, int64_t)>& sum) {
  if (w.in_features % chunks != 0 || (w.is_fp8() && w.in_features / chunks % kScaleGroup != 0))
    throw Error(fmt::format("{} columns do not divide into {} chunks", w.in_features, chunks));
  CudaWorkspace& room = workspace();
  auto rows_at_once = static_cast<int64_t>(room.parts_bytes /
                                           (static_cast<size_t>(chunks * w.out_features) * size_of(dtype())));
  if (w.is_fp8()) rows_at_once = std::min(rows_at_once, room.fp8->rows_at_once(w.in_features));
  if (rows_at_once == 0)
    throw Error(fmt::format("a product of {} parts of {} columns does not fit its workspace", chunks,
                            w.out_features));
  for (int64_t begin = 0; begin < x.rows; begin += rows_at_once) {
    const int64_t end = std::min(x.rows, begin + rows_at_once);
    if (w.is_fp8())
      room.fp8->linear_in_parts(x.slice(begin, end), w, chunks, room.parts);
    else
      room.products.run({.x = x.slice(begin, end).data,
                         .w = w.data,
                         .out = room.parts,
                         .out_dtype = dtype(),
                         .rows = end - begin,
                         .out_features = w.out_features,
                         .in_features = w.in_features,
                         .parts = chunks});
    sum(begin, end);
  }
}

void CudaDevice::linear_tree(Tensor x, const Matrix& w, int32_t chunks, Tensor out) {
  if (chunks == 1) return linear(x, w, nullptr, out);
  if (w.is_fp8() && Fp8Products::takes_tree(x.rows, chunks))
    return workspace().fp8->linear_tree(x, w, chunks, out);
  if (!w.is_fp8() && tree_gemm_takes(x.rows, w.out_features, w.in_features, chunks))
    return launch_tree_gemm({.dtype = dtype(),
                             .x = x.data,
                             .w = w.data,
                             .out = out.data,
                             .rows = x.rows,
                             .out_features = w.out_features,
                             .in_features = w.in_features,
                             .chunks = chunks,
                             .num_sms = properties_.multiProcessorCount},
                            stream_);
  linear_in_parts(x, w, chunks, [&](int64_t begin, int64_t end) {
    const Tensor sums = out.slice(begin, end);
    tree_sum({workspace().parts, dtype(), chunks * sums.rows, sums.cols}, chunks, sums);
  });
}

void CudaDevice::linear_tree_add_rms_norm(Tensor x, const Matrix& w, int32_t chunks,
                                          const AddRmsNormArgs& then) {
  const bool in_one_pass = w.is_fp8() ? Fp8Products::takes_tree(x.rows, chunks)
                                      : tree_gemm_takes(x.rows, w.out_features, w.in_features, chunks);
  if (chunks == 1 || chunks > kMaxRmsNormParts || in_one_pass)
    return Device::linear_tree_add_rms_norm(x, w, chunks, then);
  linear_in_parts(x, w, chunks, [&](int64_t begin, int64_t end) {
    launch_rms_norm({.dtype = dtype(),
                     .x = workspace().parts,
                     .num_parts = chunks,
                     .residual = then.residual.slice(begin, end).data,
                     .weight = then.weight.data,
                     .float32_weight = then.weight.dtype == DType::float32,
                     .out = then.out.slice(begin, end).data,
                     .rows = end - begin,
                     .cols = static_cast<int32_t>(then.out.cols),
                     .eps = then.eps},
                    stream_);
  });
}

void CudaDevice::add_bias(Tensor x, const Tensor& bias) {
  launch_add_bias({.dtype = x.dtype, .x = x.data, .bias = bias.data, .rows = x.rows, .cols = x.cols},
                  stream_);
}

void CudaDevice::rope_and_cache(const DevicePlan& plan, const RopeArgs& args) {
  launch_rope_cache(dtype(), plan, args, stream_);
}

void CudaDevice::head_squares(Tensor qkv, int32_t head_dim, Tensor out) {
  launch_head_squares({.dtype = dtype(),
                       .rows = qkv.data,
                       .out = static_cast<float*>(out.data),
                       .n = out.rows,
                       .width = qkv.cols,
                       .heads = static_cast<int32_t>(out.cols),
                       .head_dim = head_dim},
                      stream_);
}

void CudaDevice::qk_scales(const QkScalesArgs& args) { launch_qk_scales(args, stream_); }

void CudaDevice::add_shared(const AddSharedArgs& args) { launch_add_shared(dtype(), args, stream_); }

void CudaDevice::attention(const DevicePlan& plan, const AttentionArgs& args) {
  attention_.run(dtype(), plan, args, workspace().decode);
}

void CudaDevice::gate_heads(const GateHeadsArgs& args) { launch_gate_heads(dtype(), args, stream_); }

void CudaDevice::delta_conv(const DevicePlan& plan, const DeltaConvArgs& args) {
  launch_delta_conv(dtype(), plan, args, stream_);
}

void CudaDevice::delta_rule(const DevicePlan& plan, const DeltaRuleArgs& args) {
  launch_delta_rule(dtype(), plan, args, stream_);
}

void CudaDevice::delta_norm(const DeltaNormArgs& args) { launch_delta_norm(dtype(), args, stream_); }

void CudaDevice::swap_states(std::span<const DeltaState> states, std::span<const int32_t> pairs, Swap way) {
  workspace().states.swap(states, pairs, way);
}

void CudaDevice::copy_states(std::span<const DeltaState> states, std::span<const int32_t> pairs) {
  workspace().states.copy(states, pairs);
}

void CudaDevice::silu_mul(Tensor gate_up, Tensor out) {
  launch_silu_mul(
      {.dtype = dtype(), .gate_up = gate_up.data, .out = out.data, .rows = out.rows, .width = out.cols},
      stream_);
}

void CudaDevice::tree_sum(Tensor shards, int32_t num_shards, Tensor out) {
  launch_tree_sum({.dtype = dtype(),
                   .shards = shards.data,
                   .out = out.data,
                   .count = out.rows * out.cols,
                   .num_shards = num_shards},
                  stream_);
}

void CudaDevice::router(const RouterArgs& args) {
  launch_moe_router({.dtype = dtype(),
                     .float32_gate = args.gate.dtype == DType::float32,
                     .x = args.x.data,
                     .gate = args.gate.data,
                     .bias = static_cast<const float*>(args.bias.data),
                     .num_tokens = static_cast<int32_t>(args.x.rows),
                     .hidden = static_cast<int32_t>(args.x.cols),
                     .num_experts = static_cast<int32_t>(args.gate.rows),
                     .k = args.num_experts_per_tok,
                     .rule = args.rule,
                     .topk_ids = args.topk_ids.data,
                     .topk_weights = static_cast<float*>(args.topk_weights.data)},
                    stream_);
}

namespace {

/// The same products with weights in e4m3.
Fp8GroupedGemmArgs fp8_products(const GroupedGemmArgs& args, int32_t num_tokens, const Fp8Rows& x) {
  const int64_t rows = int64_t{num_tokens} * args.k;
  return {.dtype = args.dtype,
          .x = x,
          .gate_up = static_cast<const uint8_t*>(args.gate_up),
          .down = static_cast<const uint8_t*>(args.down),
          .h = fp8_rows_in(args.h, rows, args.intermediate),
          .y = args.y,
          .plan = args.plan,
          .tiling = args.tiling,
          .num_rows = rows,
          .k = args.k,
          .hidden = args.hidden,
          .intermediate = args.intermediate,
          .num_sms = args.num_sms};
}

}  // namespace

void CudaDevice::experts_in_parts(const ExpertFfnArgs& args,
                                  const std::function<void(int64_t, MoeCombineArgs)>& sum) {
  CudaWorkspace& room = workspace();
  const auto k = static_cast<int32_t>(args.in.topk_weights.cols);
  const auto hidden = static_cast<int32_t>(args.in.x.cols),
             intermediate = static_cast<int32_t>(args.down->in_features);
  const auto num_experts = static_cast<int32_t>(args.slots->local_slot.size);
  if (k > room.limits.num_experts_per_tok || hidden > room.limits.hidden_size ||
      intermediate > room.limits.moe_intermediate_size || num_experts > room.limits.num_experts)
    throw Error(fmt::format("experts of {} × {}, {} of {} a token, are larger than what room was made for",
                            hidden, intermediate, k, num_experts));
  for (int64_t begin = 0; begin < args.in.x.rows; begin += room.expert_tokens) {
    const int64_t end = std::min(args.in.x.rows, begin + room.expert_tokens);
    const auto num_tokens = static_cast<int32_t>(end - begin);
    const int32_t* const topk_ids = args.in.topk_ids.data + begin * k;
    const bool fp8 = args.gate_up->is_fp8();
    const MoeTiling tiling = fp8 ? fp8_grouped_gemm_tiling(num_tokens, k, num_experts)
                                 : grouped_gemm_tiling(num_tokens, k, num_experts);
    launch_moe_permute({.topk_ids = topk_ids,
                        .topk_weights = static_cast<const float*>(args.in.topk_weights.data) + begin * k,
                        .local_slot = args.slots->local_slot.data,
                        .num_tokens = num_tokens,
                        .k = k,
                        .num_experts = num_experts,
                        .tiling = tiling,
                        .plan = room.experts,
                        .expert_tokens = reinterpret_cast<unsigned long long*>(args.expert_tokens)},
                       stream_);
    void* const y =
        args.pairs ? args.out.slice(begin * k, end * k).data : room.expert_y;  // rows in the order of pairs
    const Tensor x = args.in.x.slice(begin, end);
    const GroupedGemmArgs products{.dtype = dtype(),
                                   .x = x.data,
                                   .gate_up = args.gate_up->data,
                                   .down = args.down->data,
                                   .h = room.expert_h,
                                   .y = y,
                                   .plan = room.experts,
                                   .tiling = tiling,
                                   .k = k,
                                   .hidden = hidden,
                                   .intermediate = intermediate,
                                   .num_sms = properties_.multiProcessorCount};
    if (fp8)
      launch_fp8_grouped_gemm(fp8_products(products, num_tokens, room.fp8->quantise(x)), stream_);
    else
      launch_grouped_gemm(products, stream_);
    sum(begin, {.dtype = dtype(),
                .y = y,
                .topk_ids = topk_ids,
                .local_slot = args.slots->local_slot.data,
                .num_tokens = num_tokens,
                .k = k,
                .hidden = hidden});
  }
}

void CudaDevice::expert_ffn(const ExpertFfnArgs& args) {
  experts_in_parts(args, [&](int64_t begin, MoeCombineArgs rows) {
    if (args.pairs) return;
    // Rows of partial sums count from the step's first one; rows of tokens from this part's.
    rows.partial_offsets = args.partial_offsets.data ? args.partial_offsets.data + begin : nullptr;
    rows.out =
        args.partial_offsets.data ? args.out.data : args.out.slice(begin, begin + rows.num_tokens).data;
    launch_moe_combine(rows, stream_);
  });
}

void CudaDevice::expert_ffn_add_rms_norm(const ExpertFfnArgs& args, const AddRmsNormArgs& then) {
  if (args.pairs || args.partial_offsets.data)
    throw Error("experts are normalised with the residual where each token has one sum alone");
  if (args.in.topk_weights.cols > kMaxCombineNormK || args.in.x.cols > kMaxCombineNormHidden ||
      then.weight.dtype == DType::float32)
    return Device::expert_ffn_add_rms_norm(args, then);
  experts_in_parts(args, [&](int64_t begin, MoeCombineArgs rows) {
    rows.out = then.out.slice(begin, begin + rows.num_tokens).data;
    launch_moe_combine_add_rms_norm({.sums = rows,
                                     .residual = then.residual.slice(begin, begin + rows.num_tokens).data,
                                     .weight = then.weight.data,
                                     .eps = then.eps},
                                    stream_);
  });
}

std::vector<TokenResult> CudaDevice::sample(Tensor logits, std::span<const LogitRow> rows,
                                            const StepPlan& plan) {
  return workspace().sampler.sample(logits, rows, plan);
}

}  // namespace moerun
