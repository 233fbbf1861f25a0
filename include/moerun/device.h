#pragma once
#include <compare>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "moerun/device_args.h"
#include "moerun/dtype.h"
#include "moerun/plan.h"

namespace moerun {

/// A process that holds memory of this rank's GPU, as the driver's management library (NVML) sees it.
struct DeviceProcess {
  int64_t pid = 0;
  int64_t bytes = -1;  ///< −1: NVML does not say
};

/// One line of the memory table that a run prints at its start.
struct MemoryUse {
  std::string what;
  size_t bytes = 0;
};

/// What decides which launches a step makes, and nothing of its data: two steps of equal shape may replay one
/// CUDA graph.
struct StepShape {
  int32_t num_tokens = 0, num_seqs = 0, num_prefill_seqs = 0, max_query_len = 0, max_context_len = 0;
  int32_t num_exchange_tokens =
      0;  ///< what the engine's ranks bring together, where the exchange depends on it
  auto operator<=>(const StepShape&) const = default;
};

/// The largest step that will come: what a device needs to set its workspace aside before keys and values
/// take the rest.
struct StepLimits {
  int64_t max_num_batched_tokens = 0;  ///< tokens of this rank's group in one step
  int64_t max_num_seqs = 0;
  int64_t max_model_len = 0;
  int64_t block_size = 64;        ///< tokens a key/value block
  int64_t num_host_blocks = 0;    ///< of preempted sequences in the host's memory
  int64_t max_routed_tokens = 0;  ///< rows that an expert exchange may bring here in one step
  int64_t max_logit_rows = 0;     ///< rows of logits at a time
  int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0;  ///< of this rank
  int64_t hidden_size = 0, vocab_size = 0;
  int64_t num_experts = 0, num_experts_per_tok = 0, num_local_experts = 0, moe_intermediate_size = 0;
  int32_t num_expert_groups = 1;     ///< RouterRule::num_groups
  bool fp8_keys_and_values = false;  ///< the cache is in e4m3, not in the device's dtype
  int64_t num_delta_layers = 0;      ///< with a gated delta net
};

/// One GPU, or the CPU: memory, and about 20 coarse operations that run in order on one stream. The forward
/// pass is written against this alone. Every operation computes each row by itself and reduces in a fixed
/// order, so that no row's bits depend on the others, on their number, or on the layout (invariant 1).
/// Activations have `dtype()`; accumulation is float32.
///
/// Thread contract: the engine thread alone. All throw Error (on CUDA, asynchronous faults surface at the
/// next `synchronize` or `sample`).
class Device {
 public:
  virtual ~Device() = default;

  virtual std::string name() const = 0;
  virtual DType dtype() const = 0;
  /// Whether the host may read and write this device's memory by its pointers.
  virtual bool host_memory() const { return false; }

  // --- memory (start-up only; freed with the device) ---
  virtual void* allocate(size_t bytes, const char* what) = 0;
  Tensor tensor(int64_t rows, int64_t cols, DType dtype, const char* what) {
    return {allocate(static_cast<size_t>(rows * cols) * size_of(dtype), what), dtype, rows, cols};
  }
  /// A table of which a step reads few rows (`embed`): in pinned memory of the host, a copy for each rank,
  /// which a GPU reads over the bus; its own memory has room for more keys and values then. Throws Error that
  /// names `what` and its bytes.
  virtual Tensor host_tensor(int64_t rows, int64_t cols, DType dtype, const char* what) {
    return tensor(rows, cols, dtype, what);
  }
  Ints ints(int64_t size, const char* what) {
    return {static_cast<int32_t*>(allocate(static_cast<size_t>(size) * 4, what)), size};
  }
  /// `shape.dtype`: this device's, or e4m3.
  virtual Matrix matrix(const MatrixShape& shape, const char* what) = 0;
  /// Fills rows [row0, row0 + part.rows) of map `index` (for gate_up: row0 in [0, 2·I), gate first),
  /// converting from the checkpoint's dtype. A part in e4m3 goes to a matrix of e4m3 alone, with its scales,
  /// and such a matrix takes no other.
  virtual void load(const Matrix& matrix, int64_t index, int64_t row0, const HostMatrix& part) = 0;
  /// Fills rows of a plain tensor, converting; no part in e4m3.
  virtual void load(const Tensor& tensor, int64_t row0, const HostMatrix& part) = 0;
  /// Bytes that are left for keys and values once weights and buffers are placed (CUDA: of
  /// gpu_memory_utilization; CPU: cpu_kv_gib).
  virtual size_t free_bytes() const = 0;

  /// Sets aside what the operations need beyond their arguments. Once, before keys and values are allocated
  /// and before the first step.
  virtual void reserve(const StepLimits& limits) { (void)limits; }

  virtual void copy_to_device(void* device, const void* host, size_t bytes) = 0;
  virtual void copy_to_host(void* host, const void* device, size_t bytes) = 0;  ///< waits
  /// Enqueues a copy behind what was enqueued before. It is there after the next wait: `synchronize`,
  /// `copy_to_host`, `sample` of some rows.
  virtual void begin_copy_to_host(const HostCopy& copy) = 0;
  virtual void synchronize() = 0;
  /// `check` is called now and then while the host waits for the device, and may throw: for faults that the
  /// device itself would wait out for ever.
  virtual void set_wait_check(const std::function<void()>& check) { (void)check; }

  /// What `allocate`, `matrix` and `host_tensor` took so far, by name, in the order of first use; what
  /// lies in a GPU's host last.
  virtual std::vector<MemoryUse> memory_table() const = 0;
  /// Who holds memory of this GPU right now; empty on the CPU.
  virtual std::vector<DeviceProcess> processes() const { return {}; }
  /// The GPU's own name in the machine (its UUID); empty on the CPU. Ranks that share a GPU have the same.
  virtual std::string uuid() const { return {}; }

  // --- keys and values of preempted sequences, and of prompts that begin alike ---
  /// Copies whole blocks of all layers between the cache and the host's memory, in order with the step's
  /// operations. `pairs` are [device block, host block]…; host blocks are below `num_host_blocks` of
  /// StepLimits, and their memory is taken when it is first used.
  enum class Swap { out, in };
  virtual void swap_blocks(std::span<const KvLayer> cache, std::span<const int32_t> pairs, Swap way) = 0;

  /// Copies, in all layers of the cache and in order with the step's operations, the first tokens of blocks
  /// to others: `copies` are [from block, to block, tokens]…. No block is both read and written.
  virtual void copy_rows(std::span<const KvLayer> cache, std::span<const int32_t> copies) = 0;

  // --- the step ---
  /// Runs `body`, which enqueues operations that depend on `shape` and on device memory alone (no host wait,
  /// no host data). CUDA records a shape that recurs as a graph and replays it.
  virtual void run(const StepShape& shape, const std::function<void()>& body) {
    (void)shape;
    body();
  }
  /// Forgets what `run` recorded. An exchange calls it before it goes: graphs hold its memory, and NCCL waits
  /// for those that hold its operations.
  virtual void forget_recorded() {}
  virtual DevicePlan upload(const StepPlan& plan) = 0;
  virtual void embed(const Tensor& table, Ints tokens, Tensor out) = 0;
  /// Hugging Face Qwen3MoeRMSNorm: x·rsqrt(mean(x²)+eps) in float32, rounded to dtype, times weight.
  virtual void rms_norm(Tensor x, const Tensor& weight, float eps, Tensor out) = 0;
  /// residual += delta (rounded to dtype), then out = rms_norm(residual).
  virtual void add_rms_norm(const AddRmsNormArgs& args) = 0;
  /// x·Wᵀ + bias; where W is in e4m3, as moerun/fp8.h says, here and in all that follows.
  virtual void linear(Tensor x, const Matrix& w, const Tensor* bias, Tensor out) = 0;
  /// y = x·Wᵀ with K cut into `chunks` equal parts (a power of two), each summed ascending, then summed as a
  /// binary tree: the same bits as `chunks/T` parts on each of T ranks followed by
  /// Collective::reduce_scatter. Of W in e4m3 a part is whole groups of kScaleGroup, or there is one part.
  virtual void linear_tree(Tensor x, const Matrix& w, int32_t chunks, Tensor out) = 0;
  /// The bits of linear_tree into `then.delta` and add_rms_norm of it. A device that does both in one pass
  /// leaves `then.delta` undefined.
  virtual void linear_tree_add_rms_norm(Tensor x, const Matrix& w, int32_t chunks,
                                        const AddRmsNormArgs& then) {
    linear_tree(x, w, chunks, then.delta);
    add_rms_norm(then);
  }
  /// Every row of x += bias [1, cols], both of x's dtype, to which it is rounded.
  virtual void add_bias(Tensor x, const Tensor& bias) = 0;
  /// The sum of squares of each of the first out.cols heads of qkv's rows: out [n, heads] float32.
  virtual void head_squares(Tensor qkv, int32_t head_dim, Tensor out) = 0;
  virtual void qk_scales(const QkScalesArgs& args) = 0;
  virtual void rope_and_cache(const DevicePlan& plan, const RopeArgs& args) = 0;
  virtual void attention(const DevicePlan& plan, const AttentionArgs& args) = 0;
  virtual void gate_heads(const GateHeadsArgs& args) {
    static_cast<void>(args);
    no_delta_nets();
  }

  // --- gated delta nets; a device that has none of these is refused such models by its plan ---
  /// swap_blocks, of whole slots: `pairs` are [device slot, host slot]….
  virtual void swap_states(std::span<const DeltaState> states, std::span<const int32_t> pairs, Swap way) {
    static_cast<void>(states), static_cast<void>(pairs), static_cast<void>(way);
    no_delta_nets();
  }
  /// Copies whole slots in all layers, `pairs` are [from, to]…. No slot is both read and written.
  virtual void copy_states(std::span<const DeltaState> states, std::span<const int32_t> pairs) {
    static_cast<void>(states), static_cast<void>(pairs);
    no_delta_nets();
  }
  /// Causal convolution of each channel, products in ascending order of positions, and the gates. A sequence
  /// at position 0 begins with zeros, whatever its slot has. plan.state_saves get what they ask for.
  virtual void delta_conv(const DevicePlan& plan, const DeltaConvArgs& args) {
    static_cast<void>(plan), static_cast<void>(args);
    no_delta_nets();
  }
  /// The gated delta rule: sequences that prefill by chunks of kDeltaChunk positions (UT transform, the
  /// state from chunk to chunk in order), those that decode by one recurrent step; sums in ascending order.
  /// Slots and saves as of delta_conv.
  virtual void delta_rule(const DevicePlan& plan, const DeltaRuleArgs& args) {
    static_cast<void>(plan), static_cast<void>(args);
    no_delta_nets();
  }
  virtual void delta_norm(const DeltaNormArgs& args) {
    static_cast<void>(args);
    no_delta_nets();
  }

  /// out = silu(gate)·up of gate_up [n, 2·I], laid out as a `Kind::gate_up` matrix leaves it.
  virtual void silu_mul(Tensor gate_up, Tensor out) = 0;
  virtual void router(const RouterArgs& args) = 0;
  /// The local experts' share of each token: weight·down(silu(gate x)·up x), summed along the tree over
  /// expert ids (moerun/expert_tree.h) as far as it lies on this rank; one row of `out` for each partial sum.
  virtual void expert_ffn(const ExpertFfnArgs& args) = 0;
  /// The bits of expert_ffn, one sum a token, into `then.delta` (which is `args.out`) and add_rms_norm of it;
  /// `then.out` may be the tokens themselves. A device that does both in one pass leaves `then.delta`
  /// undefined.
  virtual void expert_ffn_add_rms_norm(const ExpertFfnArgs& args, const AddRmsNormArgs& then) {
    expert_ffn(args);
    add_rms_norm(then);
  }
  /// sums += y·σ(x·gate) in float32, rounded once to dtype.
  virtual void add_shared(const AddSharedArgs& args) = 0;
  virtual void gather_rows(Tensor x, std::span<const int32_t> rows, Tensor out) = 0;
  /// out[i] = binary tree sum over s of shards[s·out.rows + i], each node rounded to the tensors' dtype.
  virtual void tree_sum(Tensor shards, int32_t num_shards, Tensor out) = 0;
  /// Draws or scores each row of logits [rows, vocab] float32; `plan` carries histories and banned ids. The
  /// step's one host wait.
  virtual std::vector<TokenResult> sample(Tensor logits, std::span<const LogitRow> rows,
                                          const StepPlan& plan) = 0;

 private:
  [[noreturn]] void no_delta_nets() const { throw Error(name() + " does not compute gated delta nets"); }
};

}  // namespace moerun
