// The experts' products as one persistent kernel.
//
// Weights are the M operand of wgmma (128 rows a tile, 64 for each of two consumer warpgroups) and tokens are
// the N operand (32 to 128 columns, as many as the expert has): few tokens waste no tensor-core rows, many
// fill the widest instruction. A producer warpgroup feeds both through a ring of shared-memory stages:
// weights by bulk copies of the packed blocks (packed_weight.h), tokens row by row with 16-byte copies, so
// that the gather costs no pass of its own. Both products run in one launch: tiles are taken in order from a
// ticket counter, all of the first product before the second, and a tile of the second waits (as good as
// never) for its rows of h; weights keep streaming across the seam.
#include "kernels/cuda/grouped_gemm.cuh"
#include "kernels/cuda/limits.h"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kProducerRegisters = 72, kConsumerRegisters = 216;
static_assert((kProducerRegisters + 2 * kConsumerRegisters) * kGroupThreads <= kGemmRegisters);

template <int kColumns>
struct Shared {
  static constexpr int kStages = 192 * 1024 / (kBlockBytes + kColumns * kRowBytes);
  alignas(1024) uint8_t weights[kStages][kBlockBytes];
  alignas(1024) uint8_t tokens[kStages][kColumns * kRowBytes];
  alignas(16) uint8_t staging[kConsumerWarps][2][512];  // where a warp turns its results around
  alignas(16) RoutedRow routes[2][2][kColumns];         // [parity of the work, consumer]
  uint64_t full[kStages], empty[kStages];
  uint64_t work_full[kWorkSlots], work_empty[kWorkSlots];
  Work work[kWorkSlots];
};

// ---------------------------------------------------------------- kernels: the producer

template <class T, int kColumns>
__device__ void produce(const GroupedGemmArgs& args, Shared<kColumns>& shared) {
  constexpr int kRowsAPass = kGroupThreads / 8,
                kPasses = kColumns / kRowsAPass;  // eight threads copy a row's 128 bytes
  const int thread = threadIdx.x, chunk = thread % 8, row0 = thread / 8;
  const bool leader = thread == 0;
  const uint32_t tokens0 = smem_address(shared.tokens) + row0 * kRowBytes + ((chunk ^ (row0 & 7)) << 4);
  const uint64_t once = policy_evict_first(), often = policy_evict_normal();
  const PackedWeight packed[2] = {{2 * args.intermediate, args.hidden}, {args.hidden, args.intermediate}};

  Ring<Shared<kColumns>::kStages> ring;
  int32_t ticket = leader ? atomicAdd(&args.plan.counters->next_ticket, 1) : 0;
  for (uint32_t turn = 0;; ++turn) {
    const uint32_t slot = turn % kWorkSlots, parity = turn / kWorkSlots % 2;
    if (leader) {
      mbarrier_wait(&shared.work_empty[slot], parity ^ 1);
      shared.work[slot] = work_of_ticket<kBlockRows>(args, ticket);
      mbarrier_arrive(&shared.work_full[slot]);
    }
    __syncwarp();
    mbarrier_wait(&shared.work_full[slot], parity);
    const Work work = shared.work[slot];
    mbarrier_arrive(&shared.work_empty[slot]);
    if (work.product < 0) return;
    if (leader) ticket = atomicAdd(&args.plan.counters->next_ticket, 1);

    const int32_t k_blocks = sizes_of<kBlockRows>(args, work.product).k_blocks;
    const int32_t cols = work.product == 0 ? args.hidden : args.intermediate;
    const T* const source = static_cast<const T*>(work.product == 0 ? args.x : args.h) + chunk * 8;
    const T* const weights = work.product == 0
                                 ? static_cast<const T*>(args.gate_up) + work.slot * packed[0].elements()
                                 : static_cast<const T*>(args.down) + work.slot * packed[1].elements();
    const T* const block0 =
        weights + static_cast<int64_t>(work.row_block) * k_blocks * PackedWeight::kBlockElements;
    const uint64_t policy = work.sharers == 1 ? once : often;

    if (work.product == 1) {  // all pieces of these rows of h must be there
      const int32_t pieces = 2 * sizes_of<kBlockRows>(args, 0).row_blocks;
      counter_wait(args.plan.tile_arrivals + work.tile, pieces);
    }
    uint32_t rows[kPasses];  // source rows
#pragma unroll
    for (int i = 0; i < kPasses; ++i) {
      const int32_t row = row0 + i * kRowsAPass;
      rows[i] = work.row_begin + row;
      if (work.product == 0 && row < work.rows) rows[i] = args.plan.rows[rows[i]].pair / args.k;
    }
    for (int32_t block = 0; block < k_blocks; ++block) {
      mbarrier_wait(&shared.empty[ring.stage], ring.parity ^ 1);
      if (leader) {
        mbarrier_arrive_expect(&shared.full[ring.stage], kBlockBytes);
        bulk_copy(shared.weights[ring.stage], block0 + block * PackedWeight::kBlockElements, kBlockBytes,
                  &shared.full[ring.stage], policy);
      }
      const uint32_t to = tokens0 + ring.stage * (kColumns * kRowBytes);
      const bool inside = block * kBlockK + chunk * 8 < cols;
#pragma unroll
      for (int i = 0; i < kPasses; ++i) {
        // Rows past the end are left as they are: they only reach columns that nobody stores.
        if (row0 + i * kRowsAPass < work.rows) {
          copy16_async(
              to + i * kRowsAPass * kRowBytes,
              source + static_cast<int64_t>(rows[i]) * cols + (inside ? block * kBlockK : -chunk * 8),
              inside);
        }
      }
      copies_arrive(&shared.full[ring.stage]);
      ring.advance();
    }
  }
}

// ---------------------------------------------------------------- kernels: the consumers

/// d [64, kWidth] = this consumer's 64 weight rows · tokensᵀ, ascending along K.
template <class T, int kWidth, int kColumns>
__device__ void multiply(Shared<kColumns>& shared, Ring<Shared<kColumns>::kStages>& ring, int consumer,
                         int32_t k_blocks, float (&d)[kWidth / 2]) {
  const uint64_t weights0 = wgmma_descriptor(smem_address(shared.weights) + consumer * 64 * kRowBytes);
  const uint64_t tokens0 = wgmma_descriptor(smem_address(shared.tokens));
  const bool elected = threadIdx.x % kWarpSize == 0;
#pragma unroll
  for (float& v : d) v = 0;
  uint32_t previous = 0;
  for (int32_t block = 0; block < k_blocks; ++block) {
    mbarrier_wait(&shared.full[ring.stage], ring.parity);
    fence_async_proxy();  // the tokens came by ordinary copies
    const uint64_t weights = weights0 + ring.stage * (kBlockBytes >> 4);
    const uint64_t tokens = tokens0 + ring.stage * (kColumns * kRowBytes >> 4);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kBlockK / 16; ++step)
      wgmma_64xNx16<T, kWidth>(d, weights + 2 * step, tokens + 2 * step);
    wgmma_commit();
    if (block > 0) {
      wgmma_wait<1>();
      if (elected) mbarrier_arrive(&shared.empty[previous]);
    }
    previous = ring.stage;
    ring.advance();
  }
  wgmma_wait<0>();
  if (elected) mbarrier_arrive(&shared.empty[previous]);
}

/// Rows 0–7 of a warp's 16 are gate rows, 8–15 their up rows: eight columns of h a warp, 16 bytes a token.
template <class T, int kWidth>
__device__ void store_h(const GroupedGemmArgs& args, const Work& work, int consumer, int warp,
                        uint8_t (*staging)[512], const float (&d)[kWidth / 2]) {
  const int lane = threadIdx.x % kWarpSize;
  const int32_t col = work.row_block * (kBlockRows / 2) + consumer * 32 + warp * 8;
  if (col >= args.intermediate) return;
  T* const out = static_cast<T*>(args.h) + static_cast<int64_t>(work.row_begin) * args.intermediate + col;
#pragma unroll
  for (int round = 0; round < kWidth / 32; ++round) {
    uint32_t m[4];
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      const float* const v = d + (round * 4 + q) * 4;
      m[q] = pack_floats<T>(silu(v[0]) * v[2], silu(v[1]) * v[3]);
    }
    uint8_t* const buffer = staging[round % 2];
    store_matrices_transposed(smem_address(buffer) + lane * 16, m[0], m[1], m[2], m[3]);
    __syncwarp();
    const int32_t row = round * 32 + lane;
    const uint4 value = *reinterpret_cast<const uint4*>(buffer + lane * 16);
    if (row < work.rows)
      *reinterpret_cast<uint4*>(out + static_cast<int64_t>(row) * args.intermediate) = value;
  }
}

/// 16 columns of y a warp, 32 bytes a token, to the row of its pair.
template <class T, int kWidth>
__device__ void store_y(const GroupedGemmArgs& args, const Work& work, int consumer, int warp,
                        uint8_t (*staging)[512], const RoutedRow* routes, const float (&d)[kWidth / 2]) {
  const int lane = threadIdx.x % kWarpSize;
  const int32_t col = work.row_block * kBlockRows + consumer * 64 + warp * 16;
  if (col >= args.hidden) return;
  const Turned16 turned(lane);
  T* const out = static_cast<T*>(args.y) + col + turned.half * 8;
  const bool inside = col + turned.half * 8 < args.hidden;
#pragma unroll
  for (int round = 0; round < kWidth / 16; ++round) {
    uint32_t m[4];
#pragma unroll
    for (int q = 0; q < 2; ++q) {
      const float* const v = d + (round * 2 + q) * 4;
      const RoutedRow* const route = routes + round * 16 + q * 8 + 2 * (lane % 4);
      const float w0 = route[0].weight, w1 = route[1].weight;
      m[2 * q] = pack_floats<T>(v[0] * w0, v[1] * w1);
      m[2 * q + 1] = pack_floats<T>(v[2] * w0, v[3] * w1);
    }
    uint8_t* const buffer = staging[round % 2];
    store_matrices_transposed(smem_address(buffer) + turned.write_at, m[0], m[1], m[2], m[3]);
    __syncwarp();
    const int32_t row = round * 16 + turned.token;
    const uint4 value = *reinterpret_cast<const uint4*>(buffer + turned.read_at);
    if (row < work.rows && inside) {
      *reinterpret_cast<uint4*>(out + static_cast<int64_t>(routes[row].pair) * args.hidden) = value;
    }
  }
}

template <class T, int kWidth, int kColumns>
__device__ void compute_tile(const GroupedGemmArgs& args, Shared<kColumns>& shared,
                             Ring<Shared<kColumns>::kStages>& ring, const Work& work, int consumer,
                             uint32_t turn) {
  const int thread = threadIdx.x % kGroupThreads, warp = thread / kWarpSize;
  float d[kWidth / 2];
  if (work.product == 0) {
    multiply<T, kWidth, kColumns>(shared, ring, consumer, sizes_of<kBlockRows>(args, 0).k_blocks, d);
    store_h<T, kWidth>(args, work, consumer, warp, shared.staging[consumer * 4 + warp], d);
    named_barrier_sync(1 + consumer, kGroupThreads);
    if (thread == 0) {
      __threadfence();
      add_release(args.plan.tile_arrivals + work.tile, 1);
    }
  } else {
    // Asked for now, needed after the product. Two buffers: a slower warp may still read those of the tile
    // before.
    constexpr int kEach = ceil_div(kWidth, kGroupThreads);
    RoutedRow mine[kEach];
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int32_t row = thread + i * kGroupThreads;
      if (row < work.rows) mine[i] = args.plan.rows[work.row_begin + row];
    }
    multiply<T, kWidth, kColumns>(shared, ring, consumer, sizes_of<kBlockRows>(args, 1).k_blocks, d);
    RoutedRow* const routes = shared.routes[turn % 2][consumer];
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      if (thread + i * kGroupThreads < kWidth) routes[thread + i * kGroupThreads] = mine[i];
    }
    named_barrier_sync(1 + consumer, kGroupThreads);
    store_y<T, kWidth>(args, work, consumer, warp, shared.staging[consumer * 4 + warp], routes, d);
  }
}

template <class T, int kColumns>
__device__ void consume(const GroupedGemmArgs& args, Shared<kColumns>& shared, int consumer) {
  Ring<Shared<kColumns>::kStages> ring;
  for (uint32_t turn = 0;; ++turn) {
    const uint32_t slot = turn % kWorkSlots;
    mbarrier_wait(&shared.work_full[slot], turn / kWorkSlots % 2);
    const Work work = shared.work[slot];
    mbarrier_arrive(&shared.work_empty[slot]);
    if (work.product < 0) return;
    const auto tile = [&]<int kWidth>() {
      if constexpr (kWidth <= kColumns)
        compute_tile<T, kWidth, kColumns>(args, shared, ring, work, consumer, turn);
    };
    switch (ceil_div(work.rows, 32)) {
      case 1:
        tile.template operator()<32>();
        break;
      case 2:
        tile.template operator()<64>();
        break;
      case 3:
        tile.template operator()<96>();
        break;
      default:
        tile.template operator()<128>();
        break;
    }
  }
}

template <class T, int kColumns>
__global__ void __launch_bounds__(kGemmThreads, 1)
    grouped_gemm_kernel(const __grid_constant__ GroupedGemmArgs args) {
  extern __shared__ __align__(1024) uint8_t shared_bytes[];
  Shared<kColumns>& shared = *reinterpret_cast<Shared<kColumns>*>(shared_bytes);
  if (threadIdx.x == 0) {
    for (int i = 0; i < Shared<kColumns>::kStages; ++i) {
      mbarrier_init(&shared.full[i], kGroupThreads + 1);  // every producer thread's copies, and the weights
      mbarrier_init(&shared.empty[i], kConsumerWarps);
    }
    for (int i = 0; i < kWorkSlots; ++i) {
      mbarrier_init(&shared.work_full[i], 1);
      mbarrier_init(&shared.work_empty[i], kGemmThreads);
    }
    mbarrier_init_fence();
  }
  __syncthreads();
  dependency_wait();
  dependents_launch();
  const int group = threadIdx.x / kGroupThreads;
  if (group == 0) {
    registers_release<kProducerRegisters>();
    produce<T, kColumns>(args, shared);
  } else {
    registers_acquire<kConsumerRegisters>();
    consume<T, kColumns>(args, shared, group - 1);
  }
}

// ---------------------------------------------------------------- launchers

template <class T, int kColumns>
void launch_columns(const GroupedGemmArgs& args, cudaStream_t stream) {
  constexpr auto* kernel = grouped_gemm_kernel<T, kColumns>;
  CUDA_CHECK(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared<kColumns>)));
  launch_dependent(kernel, static_cast<unsigned>(args.num_sms), kGemmThreads, sizeof(Shared<kColumns>),
                   stream, args);
}

}  // namespace

MoeTiling grouped_gemm_tiling(int64_t num_tokens, int32_t k, int32_t num_experts) {
  const int64_t rows_an_expert = num_tokens * k / num_experts;
  if (rows_an_expert <= 40) return {.max_rows = 64, .row_step = 32};
  if (rows_an_expert <= 96) return {.max_rows = 128, .row_step = 32};
  return {.max_rows = kWideTileRows, .row_step = 8};
}

void launch_grouped_gemm(const GroupedGemmArgs& args, cudaStream_t stream) {
  if (args.hidden % limits::kVector != 0 || args.intermediate % limits::kVector != 0) {
    throw Error("grouped_gemm: hidden and intermediate sizes must be multiples of 8, not " +
                std::to_string(args.hidden) + " and " + std::to_string(args.intermediate));
  }
  const int32_t max_rows = args.tiling.max_rows;
  if (max_rows == kWideTileRows) return launch_grouped_gemm_wide(args, stream);
  with_element(args.dtype, [&]<class T>(T) {
    switch (max_rows) {
      case 64:
        return launch_columns<T, 64>(args, stream);
      case 128:
        return launch_columns<T, 128>(args, stream);
      default:
        throw Error("grouped_gemm: tiles of 64, 128 or 160 rows, not " + std::to_string(max_rows));
    }
  });
}

}  // namespace moerun
