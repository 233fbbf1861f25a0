// The experts' products of FP8 weights as one persistent kernel, in the scheme of grouped_gemm_wide.cu: tiles
// of 256 weight rows × up to 128 tokens, taken in order from a ticket counter, all of the first product
// before the second. 256 rows of gate and up are 128 columns of h, one group: h is quantised before it leaves
// the multiprocessor, and the second product reads a byte an element.
//
// In a tile of more than 64 tokens each consumer has half of the tokens, else half of the weights. Where an
// expert has many rows, two blocks of a cluster take two of its tiles with the same weights: each copies half
// of them to both.
#include "kernels/cuda/fp8_grouped_gemm.h"

#include "kernels/cuda/fp8_gemm.cuh"
#include "kernels/cuda/limits.h"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kTileRows = 256, kBlocks = 2;
constexpr int kProducerBarrier = 1, kConsumerBarrier = 2, kConsumersBarrier = 4;  // of the named ones

struct Params {
  Fp8GroupedGemmArgs args;
  CUtensorMap h;
};

template <int kTokens>
struct Shared {
  static constexpr int kClusterBlocks = kTokens == 128 ? 2 : 1;
  Fp8Stages<kBlocks, kTokens, kTokens == 128 ? 4 : 5> stages;
  alignas(16) uint8_t staging[kConsumerWarps][2][1024];  // where a warp turns its results around
  RoutedRow routes[2][kConsumerTokens];                  // of each consumer
  float amax[2][2][kConsumerTokens];                     // [turn, consumer] of halves of groups of h
  uint64_t work_full[kWorkSlots], work_empty[kWorkSlots], ticket_full[kTicketSlots];
  Work work[kWorkSlots];
  int32_t tickets[kTicketSlots];
};
static_assert(sizeof(Shared<128>) <= 227 * 1024 && sizeof(Shared<64>) <= 227 * 1024);

__device__ int32_t k_blocks_of(const Fp8GroupedGemmArgs& args, int product) {
  return static_cast<int32_t>(scale_groups(product == 0 ? args.hidden : args.intermediate));
}
__device__ int32_t row_blocks_of(const Fp8GroupedGemmArgs& args, int product) {
  return ceil_div(product == 0 ? 2 * args.intermediate : args.hidden, kTileRows);
}

// ---------------------------------------------------------------- kernels: the producer

template <class Shared>
__device__ __forceinline__ void produce(const Params& params, Shared& shared) {
  const Fp8GroupedGemmArgs& args = params.args;
  constexpr int kClusterBlocks = Shared::kClusterBlocks;
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const auto rank = static_cast<int32_t>(kClusterBlocks > 1 ? cluster_rank() : 0);
  const int2 row_blocks = make_int2(row_blocks_of(args, 0), row_blocks_of(args, 1));
  const uint64_t policy = policy_evict_first();
  Ring<decltype(shared.stages)::kStages> ring;
  for (uint32_t turn = 0;; ++turn) {
    const uint32_t slot = turn % kWorkSlots, parity = turn / kWorkSlots % 2;
    if (thread == 0) {
      mbarrier_wait(&shared.work_empty[slot], parity ^ 1);
      shared.work[slot] = work_of_ticket<kClusterBlocks>(
          args.plan, row_blocks, next_ticket<kClusterBlocks>(args.plan, shared, turn, rank), rank);
      mbarrier_arrive(&shared.work_full[slot]);
    }
    __syncwarp();
    mbarrier_wait(&shared.work_full[slot], parity);
    const Work work = shared.work[slot];
    if (work.product < 0) return;

    const bool first = work.product == 0;
    const Fp8PackedWeight packed{first ? 2 * args.intermediate : args.hidden,
                                 first ? args.hidden : args.intermediate};
    const auto k_blocks = static_cast<int32_t>(packed.col_blocks());
    if (!first) {  // all pieces of these rows of h must be there
      counter_wait(args.plan.tile_arrivals + work.tile, 2 * row_blocks.x);
      fence_async_proxy_global();
    }
    named_barrier_sync(kProducerBarrier, kGroupThreads);  // the places of the tile before are read
    mbarrier_arrive(&shared.work_empty[slot]);
    if (thread < work.rows) {
      const int32_t row = work.row_begin + thread;
      const int32_t from = first ? args.plan.rows[row].pair / args.k : row;
      shared.stages.places[thread] = static_cast<uint32_t>(from) * static_cast<uint32_t>(k_blocks);
    }
    named_barrier_sync(kProducerBarrier, kGroupThreads);
    const int64_t rows_apart = k_blocks * Fp8PackedWeight::kBlockBytes;
    fill<kClusterBlocks>(shared.stages, ring,
                         {.weights = (first ? args.gate_up : args.down) + work.slot * packed.bytes() +
                                     2 * work.row_block * rows_apart,
                          // Where a matrix ends within the tile its last block comes twice: nobody stores the
                          // copy's rows.
                          .to_second = 2 * work.row_block + 1 < packed.row_blocks() ? rows_apart : 0,
                          .same_weights = work.same_weights,
                          .values = first ? args.x.values : args.h.values,
                          .scales = first ? args.x.scales : args.h.scales,
                          .rows = work.rows,
                          .k_blocks = k_blocks,
                          .map = first ? nullptr : &params.h,
                          .first_row = work.row_begin},
                         policy);
  }
}

// ---------------------------------------------------------------- kernels: the consumers

/// Two columns of h from 8i + 2(lane % 4) on, of token 8·half + lane/4, rounded to T.
template <class T>
__device__ __forceinline__ uint32_t swiglu(const float* acc, int i, int half) {
  const float *const g = acc + 8 * i + 2 * half, *const u = g + 4;
  return pack_floats<T>(silu(g[0]) * u[0], silu(g[1]) * u[1]);
}

/// Four lanes side by side hold two bytes each of four runs of eight: each gets a whole run, lane l of them
/// run l.
__device__ __forceinline__ uint2 gather_runs(const uint32_t (&run)[4]) {
  const int lane = threadIdx.x % 4;
  const bool odd = lane % 2 == 1, upper = lane >= 2;
  uint32_t words[2];  // of runs 0 and 1, 2 and 3: bytes 0–3 in lanes 0 and 1, 4–7 in lanes 2 and 3
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t keep = odd ? run[2 * i + 1] : run[2 * i], give = odd ? run[2 * i] : run[2 * i + 1];
    const uint32_t got = __shfl_xor_sync(kFullMask, give, 1);
    words[i] = odd ? got | keep << 16 : keep | got << 16;
  }
  const uint32_t got = __shfl_xor_sync(kFullMask, upper ? words[0] : words[1], 2);
  return upper ? make_uint2(got, words[1]) : make_uint2(words[0], got);
}

/// Even 8-row groups of the weights are gate rows, odd ones their up rows: 64 columns of h a piece. `turn`
/// counts the tiles whose groups both consumers have a half of.
template <class T, int kPieces, class Shared>
__device__ __forceinline__ void store_h(const Fp8GroupedGemmArgs& args, Shared& shared, const Work& work,
                                        const Fp8Share& share, uint32_t& turn,
                                        const float (&acc)[kPieces][kFp8BlockRows / 2]) {
  constexpr int kRuns = kPieces * 8;  // of eight columns
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x % kGroupThreads / kWarpSize;
  const int consumer = share.block;  // in a tile that both have a half of
  const int32_t first_col = work.row_block * kScaleGroup + share.block * 64;
  const int32_t group_of_row0 = work.row_begin * k_blocks_of(args, 1) + work.row_block;
  uint32_t h[2][kRuns];
  float amax[2] = {};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int i = 0; i < kRuns; ++i) {
      h[half][i] = first_col + 8 * i < args.intermediate ? swiglu<T>(acc[i / 8], i % 8, half) : 0;
      const float2 v = unpack_floats<T>(h[half][i]);
      amax[half] = fmaxf(amax[half], fmaxf(fabsf(v.x), fabsf(v.y)));
    }
    amax[half] = amax_of_lanes<4>(amax[half]);
  }
  if constexpr (kPieces == 1) {
    float(*const shared_amax)[kConsumerTokens] = shared.amax[turn++ % 2];
    const int row = warp * 16 + lane / 4;
    if (lane % 4 < 2) shared_amax[consumer][row + lane % 4 * 8] = lane % 4 == 0 ? amax[0] : amax[1];
    // Whoever passes has read what the next but one turn overwrites.
    named_barrier_sync(kConsumersBarrier, 2 * kGroupThreads);
    amax[0] = fmaxf(amax[0], shared_amax[1 - consumer][row]);
    amax[1] = fmaxf(amax[1], shared_amax[1 - consumer][row + 8]);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float scale = activation_scale(amax[half]);
    const Fp8Divider divide(scale);
    const int32_t row = share.token + warp * 16 + half * 8 + lane / 4;
    const int64_t group = group_of_row0 + static_cast<int64_t>(row) * k_blocks_of(args, 1);
    uint8_t* const out = args.h.values + group * kScaleGroup + share.block * 64 + lane % 4 * 8;
#pragma unroll
    for (int i = 0; i < kRuns; i += 4) {
      uint32_t run[4];
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const float2 v = unpack_floats<T>(h[half][i + r]);
        run[r] = pack_e4m3(divide(v.x), divide(v.y));
      }
      const uint2 bytes = gather_runs(run);
      if (row < work.rows) *reinterpret_cast<uint2*>(out + 8 * i) = bytes;
    }
    if (lane % 4 == 0 && share.block == 0 && row < work.rows) args.h.scales[group] = scale;
  }
}

template <class T, int kPieces>
__device__ __forceinline__ void store_y(const Fp8GroupedGemmArgs& args, const Work& work,
                                        const Fp8Share& share, uint8_t (*staging)[1024],
                                        const RoutedRow* routes,
                                        const float (&acc)[kPieces][kFp8BlockRows / 2]) {
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x % kGroupThreads / kWarpSize;
  const int32_t col = work.row_block * kTileRows + share.block * kFp8BlockRows;
  const RoutedRow* const of_warp = routes + warp * 16;
  const float weight[2] = {of_warp[lane / 4].weight, of_warp[lane / 4 + 8].weight};
  const int32_t rows = work.rows - share.token - warp * 16;
  T* const out = static_cast<T*>(args.y) + col;
  store_turned<kPieces, kFp8BlockRows>(
      staging,
      [&](int p, int half, int j) {
        const float* const v = acc[p] + 4 * j + 2 * half;
        return pack_floats<T>(v[0] * weight[half], v[1] * weight[half]);
      },
      [&](int token, int column, uint4 value) {
        if (token < rows && col + column < args.hidden)
          *reinterpret_cast<uint4*>(out + static_cast<int64_t>(of_warp[token].pair) * args.hidden + column) =
              value;
      });
}

template <class T, int kPieces, class Shared>
__device__ __forceinline__ void compute_tile(const Fp8GroupedGemmArgs& args, Shared& shared,
                                             Ring<decltype(Shared::stages)::kStages>& ring, const Work& work,
                                             int consumer, uint32_t& turn) {
  const int thread = threadIdx.x % kGroupThreads;
  const Fp8Share share{.token = kPieces == 2 ? consumer * kConsumerTokens : 0,
                       .block = kPieces == 2 ? 0 : consumer};
  RoutedRow mine;  // asked for now, needed after the second product
  const int32_t row = share.token + thread;
  if (work.product == 1 && thread < kConsumerTokens && row < work.rows)
    mine = args.plan.rows[work.row_begin + row];
  float acc[kPieces][kFp8BlockRows / 2];
  multiply<Shared::kClusterBlocks, kPieces, kFp8BlockRows>(shared.stages, ring, share,
                                                           k_blocks_of(args, work.product), acc);
  if (work.product == 0) {
    store_h<T, kPieces>(args, shared, work, share, turn, acc);
    fence_async_proxy_global();  // the copy engine reads h
    named_barrier_sync(kConsumerBarrier + consumer, kGroupThreads);
    if (thread == 0 && work.rows > 0) {
      __threadfence();
      add_release(args.plan.tile_arrivals + work.tile, 1);
    }
  } else {
    RoutedRow* const routes = shared.routes[consumer];
    named_barrier_sync(kConsumerBarrier + consumer, kGroupThreads);  // those of the tile before are read
    if (thread < kConsumerTokens) routes[thread] = mine;
    named_barrier_sync(kConsumerBarrier + consumer, kGroupThreads);
    store_y<T, kPieces>(args, work, share, shared.staging[consumer * 4 + thread / kWarpSize], routes, acc);
  }
}

template <class T, int kTokens>
__device__ __forceinline__ void consume(const Fp8GroupedGemmArgs& args, Shared<kTokens>& shared,
                                        int consumer) {
  Ring<decltype(shared.stages)::kStages> ring;
  uint32_t amax_turn = 0;
  for (uint32_t turn = 0;; ++turn) {
    const uint32_t slot = turn % kWorkSlots;
    mbarrier_wait(&shared.work_full[slot], turn / kWorkSlots % 2);
    const Work work = shared.work[slot];
    mbarrier_arrive(&shared.work_empty[slot]);
    if (work.product < 0) return;
    if (kTokens == kConsumerTokens || work.rows <= kConsumerTokens)
      compute_tile<T, 1>(args, shared, ring, work, consumer, amax_turn);
    else
      compute_tile<T, 2>(args, shared, ring, work, consumer, amax_turn);
  }
}

template <class T, int kTokens>
__global__ void __launch_bounds__(kGemmThreads, 1) __cluster_dims__(Shared<kTokens>::kClusterBlocks)
    fp8_grouped_gemm_kernel(const __grid_constant__ Params params) {
  extern __shared__ __align__(1024) uint8_t shared_bytes[];
  auto& shared = *reinterpret_cast<Shared<kTokens>*>(shared_bytes);
  if (threadIdx.x == 0) {
    shared.stages.init(Shared<kTokens>::kClusterBlocks);
    for (int i = 0; i < kWorkSlots; ++i) {
      mbarrier_init(&shared.work_full[i], 1);
      mbarrier_init(&shared.work_empty[i], kGemmThreads);
    }
    for (int i = 0; i < kTicketSlots; ++i) mbarrier_init(&shared.ticket_full[i], 1);
    mbarrier_init_fence();
  }
  run_warpgroups<Shared<kTokens>::kClusterBlocks>(
      [&] { produce(params, shared); },
      [&](int consumer) { consume<T, kTokens>(params.args, shared, consumer); });
}

// ---------------------------------------------------------------- launchers

template <class T, int kTokens>
void launch_tokens(const Fp8GroupedGemmArgs& args, cudaStream_t stream) {
  constexpr auto* kernel = fp8_grouped_gemm_kernel<T, kTokens>;
  constexpr int kClusterBlocks = Shared<kTokens>::kClusterBlocks;
  CUDA_CHECK(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared<kTokens>)));
  launch_dependent(
      kernel, static_cast<unsigned>(args.num_sms / kClusterBlocks * kClusterBlocks), kGemmThreads,
      sizeof(Shared<kTokens>), stream,
      Params{args, fp8_rows_map<kTokens>(args.h.values, args.num_rows, scale_groups(args.intermediate))});
}

}  // namespace

MoeTiling fp8_grouped_gemm_tiling(int64_t num_tokens, int32_t k, int32_t num_experts) {
  const int64_t rows_an_expert = num_tokens * k / num_experts;
  return {.max_rows = rows_an_expert <= 48 ? 64 : 128, .row_step = 64};
}

void launch_fp8_grouped_gemm(const Fp8GroupedGemmArgs& args, cudaStream_t stream) {
  if (args.hidden % limits::kVector != 0 || args.intermediate % limits::kVector != 0) {
    throw Error("fp8_grouped_gemm: hidden and intermediate sizes must be multiples of 8, not " +
                std::to_string(args.hidden) + " and " + std::to_string(args.intermediate));
  }
  with_element(args.dtype, [&]<class T>(T) {
    switch (args.tiling.max_rows) {
      case 64:
        return launch_tokens<T, 64>(args, stream);
      case 128:
        return launch_tokens<T, 128>(args, stream);
      default:
        throw Error("fp8_grouped_gemm: tiles of 64 or 128 rows, not " + std::to_string(args.tiling.max_rows));
    }
  });
}

}  // namespace moerun
