// One-sided exchange of tokens with their experts' ranks: kernels store into peers' windows and raise epoch
// flags there. No host takes part, so the exchange can be recorded in a graph. Memory model: the pushes of
// all blocks are ordered before the flag by a system-scope fence in each block, the count of finished blocks,
// and a release store; the waiter's acquire load orders its reads behind it (PTX ISA, "Memory Consistency
// Model").
#include "kernels/cuda/common.cuh"
#include "kernels/cuda/moe_combine.h"
#include "kernels/cuda/p2p_exchange.h"
#include "kernels/cuda/rank_tree_sum.h"

namespace moerun {

namespace {

using namespace moerun::cuda;

constexpr int kThreads = 128;
constexpr int kMaxBlocks = 256;

__device__ void store_release_system(uint64_t* p, uint64_t v) {
  asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(p), "l"(v) : "memory");
}
__device__ uint64_t load_acquire_system(const uint64_t* p) {
  uint64_t v;
  asm volatile("ld.acquire.sys.global.u64 %0, [%1];" : "=l"(v) : "l"(p) : "memory");
  return v;
}

/// The ranks that hold an expert of a token, as a bit mask.
__device__ uint64_t ranks_of_token(const P2pArgs& args, const int32_t* ids) {
  uint64_t mask = 0;
  for (int i = 0; i < args.layout.k; ++i) mask |= uint64_t{1} << args.rank_of[ids[i]];
  return mask;
}

__device__ void start_clock(const P2pArgs& args) {
  if (args.clock && blockIdx.x == 0 && threadIdx.x == 0) args.clock->began = nanoseconds();
}

/// Called by all threads of every block when its pushes are done. The last block raises this rank's flag at
/// every peer and waits for theirs.
__device__ void meet_peers(const P2pArgs& args, int phase, size_t flags) {
  __shared__ bool last;
  __threadfence_system();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(&args.blocks_done[phase - 1], 1) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  __threadfence_system();
  const uint64_t epoch = *args.epoch + 1;
  for (int peer = threadIdx.x; peer < args.layout.ranks; peer += blockDim.x)
    store_release_system(reinterpret_cast<uint64_t*>(args.windows[peer] + flags) + args.rank, epoch);
  const uint64_t start = nanoseconds();
  for (int peer = threadIdx.x; peer < args.layout.ranks; peer += blockDim.x) {
    const auto* const flag = reinterpret_cast<const uint64_t*>(args.windows[args.rank] + flags) + peer;
    while (load_acquire_system(flag) < epoch) {
      if (nanoseconds() - start > args.deadline_ns) {
        args.fault->peer = peer;
        args.fault->phase = phase;
        __threadfence_system();
        __trap();
      }
      __nanosleep(64);
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    args.blocks_done[phase - 1] = 0;
    if (phase == 2) *args.epoch = epoch;
    // Block 0 wrote `began` before it counted itself as done.
    if (args.clock) args.clock->total += nanoseconds() - *static_cast<volatile uint64_t*>(&args.clock->began);
  }
}

/// Vector: uint4 when rows are multiples of 16 bytes, else single 16-bit elements.
template <class Vector>
__global__ void __launch_bounds__(kThreads)
    dispatch_kernel(const __grid_constant__ P2pArgs args, const Vector* x, const int32_t* ids,
                    const float* weights, int32_t num_tokens, int32_t step_tokens) {
  start_clock(args);
  const P2pLayout& layout = args.layout;
  const auto vectors = static_cast<int>(layout.row_bytes() / sizeof(Vector));
  for (int token = blockIdx.x; token < step_tokens; token += gridDim.x) {
    const bool real = token < num_tokens;
    const size_t row = static_cast<size_t>(args.rank) * step_tokens + token;
    const int32_t* const token_ids = ids + static_cast<size_t>(token) * layout.k;
    for (int i = threadIdx.x; i < layout.ranks * layout.k; i += kThreads) {
      const int peer = i / layout.k, choice = i % layout.k;
      const bool there = real && args.rank_of[token_ids[choice]] == peer;
      char* const window = args.windows[peer];
      reinterpret_cast<int32_t*>(window + layout.ids())[row * layout.k + choice] =
          there ? token_ids[choice] : -1;
      reinterpret_cast<float*>(window + layout.weights())[row * layout.k + choice] =
          there ? weights[static_cast<size_t>(token) * layout.k + choice] : 0.0f;
    }
    if (!real) continue;
    const uint64_t destinations = ranks_of_token(args, token_ids);
    for (int v = threadIdx.x; v < vectors; v += kThreads) {
      const Vector value = x[static_cast<size_t>(token) * vectors + v];
      for (uint64_t left = destinations; left != 0; left &= left - 1) {
        const int peer = __ffsll(static_cast<long long>(left)) - 1;
        reinterpret_cast<Vector*>(args.windows[peer] + layout.tokens())[row * vectors + v] = value;
      }
    }
  }
  meet_peers(args, 1, layout.dispatched());
}

template <class Vector>
__global__ void __launch_bounds__(kThreads)
    return_kernel(const __grid_constant__ P2pArgs args, const Vector* partial, int32_t step_tokens) {
  start_clock(args);
  const P2pLayout& layout = args.layout;
  const auto vectors = static_cast<int>(layout.row_bytes() / sizeof(Vector));
  const auto* const arrived = reinterpret_cast<const int32_t*>(args.windows[args.rank] + layout.ids());
  for (int row = blockIdx.x; row < layout.ranks * step_tokens; row += gridDim.x) {
    const int source = row / step_tokens, token = row % step_tokens;
    const int32_t* const ids = arrived + static_cast<size_t>(row) * layout.k;
    auto* const back = reinterpret_cast<Vector*>(args.windows[source] + layout.partials());
    const auto push = [&](size_t from, size_t to) {
      for (int v = threadIdx.x; v < vectors; v += kThreads)
        back[to * vectors + v] = partial[from * vectors + v];
    };
    bool any = false;
    for (int i = 0; i < layout.k; ++i) {
      if (ids[i] < 0) continue;
      any = true;
      if (layout.pairs)
        push(static_cast<size_t>(row) * layout.k + i, static_cast<size_t>(token) * layout.k + i);
    }
    if (any && !layout.pairs) push(row, static_cast<size_t>(args.rank) * step_tokens + token);
  }
  meet_peers(args, 2, layout.combined());
}

int grid_for(int rows) { return rows < 1 ? 1 : rows < kMaxBlocks ? rows : kMaxBlocks; }

bool wide(const P2pArgs& args) { return args.layout.row_bytes() % sizeof(uint4) == 0; }

}  // namespace

void launch_p2p_dispatch(const P2pArgs& args, const void* x, const int32_t* ids, const float* weights,
                         int32_t num_tokens, int32_t step_tokens, cudaStream_t stream) {
  const int grid = grid_for(step_tokens);
  if (wide(args))
    dispatch_kernel<uint4><<<grid, kThreads, 0, stream>>>(args, static_cast<const uint4*>(x), ids, weights,
                                                          num_tokens, step_tokens);
  else
    dispatch_kernel<uint16_t><<<grid, kThreads, 0, stream>>>(args, static_cast<const uint16_t*>(x), ids,
                                                             weights, num_tokens, step_tokens);
  CUDA_CHECK(cudaGetLastError());
}

void launch_p2p_return(const P2pArgs& args, const void* partial, int32_t step_tokens, cudaStream_t stream) {
  const int grid = grid_for(args.layout.ranks * step_tokens);
  if (wide(args))
    return_kernel<uint4>
        <<<grid, kThreads, 0, stream>>>(args, static_cast<const uint4*>(partial), step_tokens);
  else
    return_kernel<uint16_t>
        <<<grid, kThreads, 0, stream>>>(args, static_cast<const uint16_t*>(partial), step_tokens);
  CUDA_CHECK(cudaGetLastError());
}

void launch_p2p_sum(const P2pSumArgs& args, cudaStream_t stream) {
  const P2pArgs& exchange = *args.exchange;
  const P2pLayout& layout = exchange.layout;
  const char* const back = args.own_window + layout.partials();
  if (layout.pairs)
    launch_moe_combine({.dtype = exchange.dtype,
                        .y = back,
                        .topk_ids = args.ids,
                        .local_slot = args.every_slot,
                        .out = args.out,
                        .num_tokens = args.num_tokens,
                        .k = layout.k,
                        .hidden = layout.hidden},
                       stream);
  else
    launch_rank_tree_sum({.partials = back,
                          .ids = args.ids,
                          .rank_of = exchange.rank_of,
                          .out = args.out,
                          .ranks = layout.ranks,
                          .k = layout.k,
                          .hidden = layout.hidden,
                          .num_tokens = args.num_tokens,
                          .step_tokens = args.step_tokens,
                          .dtype = exchange.dtype},
                         stream);
}

}  // namespace moerun
