// One-sided exchange of tokens with their experts' ranks: kernels store into peers' windows and raise epoch
// flags there. No host takes part, so the exchange can be recorded in a graph. Memory model: the pushes of
// all blocks are ordered before the flag by a system-scope fence in each block, the count of finished blocks,
// and a release store; the waiter's acquire load orders its reads behind it (PTX ISA, "Memory Consistency
// Model").
#include <algorithm>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/moe_combine.h"
#include "kernels/cuda/p2p_exchange.h"
#include "kernels/cuda/rank_tree_sum.h"

namespace moerun {

namespace {

using namespace moerun::cuda;

constexpr int kWarps = 4, kThreads = kWarps * kWarpSize;
constexpr int kMaxBlocks = 528;  // four a multiprocessor
constexpr int kUnroll = 8;       // vectors of a row that a lane has in flight

__device__ void store_release_system(uint64_t* p, uint64_t v) {
  asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(p), "l"(v) : "memory");
}
__device__ uint64_t load_acquire_system(const uint64_t* p) {
  uint64_t v;
  asm volatile("ld.acquire.sys.global.u64 %0, [%1];" : "=l"(v) : "l"(p) : "memory");
  return v;
}

/// The rank that computes an expert for one of this rank's tokens.
__device__ int32_t computing_rank(const P2pArgs& args, const P2pTokens& tokens, int32_t id, int32_t token) {
  return tokens.rank_of_turn ? tokens.rank_of_turn[id * kExpertTurns + turn_of(args.rank, token)]
                             : args.rank_of[id];
}

/// A warp copies a row to each of `count` places; place(i) says where.
template <class Vector, class Place>
__device__ void copy_row(const Vector* from, int vectors, int count, const Place& place) {
  const int lane = threadIdx.x % kWarpSize;
  for (int begin = lane; begin < vectors; begin += kWarpSize * kUnroll) {
    Vector value[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
      if (begin + u * kWarpSize < vectors) value[u] = from[begin + u * kWarpSize];
    for (int i = 0; i < count; ++i) {
      Vector* const to = place(i);
#pragma unroll
      for (int u = 0; u < kUnroll; ++u)
        if (begin + u * kWarpSize < vectors) to[begin + u * kWarpSize] = value[u];
    }
  }
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

/// A warp a token. Vector: uint4 when rows are multiples of 16 bytes, else single 16-bit elements.
template <class Vector>
__global__ void __launch_bounds__(kThreads)
    dispatch_kernel(const __grid_constant__ P2pArgs args, const __grid_constant__ P2pTokens tokens) {
  start_clock(args);
  const P2pLayout& layout = args.layout;
  const int k = layout.k, lane = threadIdx.x % kWarpSize;
  const auto vectors = static_cast<int>(layout.row_bytes() / sizeof(Vector));
  for (int token = blockIdx.x * kWarps + threadIdx.x / kWarpSize; token < tokens.step_tokens;
       token += gridDim.x * kWarps) {
    const bool real = token < tokens.num_tokens;
    const size_t row = static_cast<size_t>(args.rank) * tokens.step_tokens + token;
    uint64_t destinations = 0;
    for (int i = lane; i < layout.ranks * k; i += kWarpSize) {
      const int peer = i / k, choice = i % k;
      const int32_t id = real ? tokens.ids[static_cast<size_t>(token) * k + choice] : -1;
      const bool there = real && computing_rank(args, tokens, id, token) == peer;
      if (there) destinations |= uint64_t{1} << peer;
      char* const window = args.windows[peer];
      reinterpret_cast<int32_t*>(window + layout.ids())[row * k + choice] = there ? id : -1;
      reinterpret_cast<float*>(window + layout.weights())[row * k + choice] =
          there ? tokens.weights[static_cast<size_t>(token) * k + choice] : 0.0f;
    }
    if (!real) continue;
    const uint32_t low = __reduce_or_sync(kFullMask, static_cast<uint32_t>(destinations)),
                   high = __reduce_or_sync(kFullMask, static_cast<uint32_t>(destinations >> 32));
    destinations = uint64_t{high} << 32 | low;
    copy_row(static_cast<const Vector*>(tokens.x) + static_cast<size_t>(token) * vectors, vectors,
             __popcll(destinations), [&](int i) {
               uint64_t left = destinations;
               for (; i > 0; --i) left &= left - 1;
               const int peer = __ffsll(static_cast<long long>(left)) - 1;
               return reinterpret_cast<Vector*>(args.windows[peer] + layout.tokens()) + row * vectors;
             });
  }
  meet_peers(args, 1, layout.dispatched());
}

/// A warp a row that arrived.
template <class Vector>
__global__ void __launch_bounds__(kThreads)
    return_kernel(const __grid_constant__ P2pArgs args, const Vector* partial, int32_t step_tokens) {
  start_clock(args);
  const P2pLayout& layout = args.layout;
  const int k = layout.k, lane = threadIdx.x % kWarpSize;
  const auto vectors = static_cast<int>(layout.row_bytes() / sizeof(Vector));
  const auto* const arrived = reinterpret_cast<const int32_t*>(args.windows[args.rank] + layout.ids());
  for (int row = blockIdx.x * kWarps + threadIdx.x / kWarpSize; row < layout.ranks * step_tokens;
       row += gridDim.x * kWarps) {
    const int source = row / step_tokens, token = row % step_tokens;
    const bool mine = lane < k && arrived[static_cast<size_t>(row) * k + lane] >= 0;
    uint32_t choices = __ballot_sync(kFullMask, mine);
    if (choices == 0) continue;
    auto* const back = reinterpret_cast<Vector*>(args.windows[source] + layout.partials());
    const auto push = [&](size_t from, size_t to) {
      copy_row(partial + from * vectors, vectors, 1, [&](int) { return back + to * vectors; });
    };
    if (!layout.pairs) push(row, static_cast<size_t>(args.rank) * step_tokens + token);
    for (; layout.pairs && choices != 0; choices &= choices - 1) {
      const int choice = __ffs(static_cast<int>(choices)) - 1;
      push(static_cast<size_t>(row) * k + choice, static_cast<size_t>(token) * k + choice);
    }
  }
  meet_peers(args, 2, layout.combined());
}

int grid_for(int rows) { return std::clamp(ceil_div(rows, kWarps), 1, kMaxBlocks); }

bool wide(const P2pArgs& args) { return args.layout.row_bytes() % sizeof(uint4) == 0; }

}  // namespace

void launch_p2p_dispatch(const P2pArgs& args, const P2pTokens& tokens, cudaStream_t stream) {
  if (args.layout.k > kWarpSize)
    throw Error("the one-sided exchange takes at most 32 experts a token, not " +
                std::to_string(args.layout.k));
  const int grid = grid_for(tokens.step_tokens);
  if (wide(args))
    dispatch_kernel<uint4><<<grid, kThreads, 0, stream>>>(args, tokens);
  else
    dispatch_kernel<uint16_t><<<grid, kThreads, 0, stream>>>(args, tokens);
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
