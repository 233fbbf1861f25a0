// The experts' products for steps with many tokens an expert: grouped_gemm.cu's scheme with tiles of 256
// weight rows × up to 160 tokens, 128 × 160 for each consumer. A byte that reaches a multiprocessor is used
// more often than in tiles of 128 weight rows, and an expert's rows cut into tiles of any multiple of 8 leave
// few columns that nobody needs. Two blocks of a cluster take two tiles of an expert with the same weights:
// each copies half of them to both. Weights are marked to leave the cache first: those that several blocks
// read come faster so (kernels/README.md).
#include "kernels/cuda/grouped_gemm.cuh"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kColumns = kWideTileRows, kTileRows = 2 * kBlockRows, kStages = 4;
constexpr int kProducerRegisters = 72, kConsumerRegisters = 216;
static_assert((kProducerRegisters + 2 * kConsumerRegisters) * kGroupThreads <= kGemmRegisters);
constexpr int kClusterBlocks = 2;
static_assert(kTicketSlots > kStages + 1);
constexpr int kProducerBarrier = 1, kConsumerBarrier = 2;  // of the named ones

struct Shared {
  alignas(1024) uint8_t weights[kStages][2 * kBlockBytes];
  alignas(1024) uint8_t tokens[kStages][kColumns * kRowBytes];
  alignas(16) uint8_t staging[kConsumerWarps][4][512];  // where a warp turns its results around
  /// [parity of the work] of each row of the tile: for the first product `pair` is the token, for the second
  /// both are what they say.
  alignas(16) RoutedRow routes[2][kColumns];
  uint64_t full[kStages], empty[kStages];
  uint64_t work_full[kWorkSlots], work_empty[kWorkSlots], ticket_full[kTicketSlots];
  uint64_t stored;  // both consumers have stored a tile
  Work work[kWorkSlots];
  int32_t tickets[kTicketSlots];
};
static_assert(sizeof(Shared) <= 227 * 1024);

// ---------------------------------------------------------------- kernels: the producer

template <class T>
__device__ void produce(const GroupedGemmArgs& args, Shared& shared) {
  constexpr int kRowThreads = 8, kRowsAPass = kGroupThreads / kRowThreads,
                kPasses = kColumns / kRowsAPass;  // eight threads copy a row's 128 bytes
  const int thread = threadIdx.x, chunk = thread % kRowThreads, row0 = thread / kRowThreads;
  const bool leader = thread == 0;
  const auto rank = static_cast<int32_t>(cluster_rank());
  const uint64_t policy = policy_evict_first();
  const uint32_t tokens0 = smem_address(shared.tokens) + row0 * kRowBytes + ((chunk ^ (row0 & 7)) << 4);
  Ring<kStages> ring;

  for (uint32_t turn = 0;; ++turn) {
    // Not before the last tile is under way: the blocks that finish first take the last tickets.
    const uint32_t slot = turn % kWorkSlots, parity = turn / kWorkSlots % 2;
    if (leader) {
      mbarrier_wait(&shared.work_empty[slot], parity ^ 1);
      shared.work[slot] = work_of_ticket<kTileRows, kClusterBlocks>(
          args, next_ticket<kClusterBlocks>(args.plan, shared, turn, rank), rank);
      mbarrier_arrive(&shared.work_full[slot]);
    }
    __syncwarp();
    mbarrier_wait(&shared.work_full[slot], parity);
    const Work work = shared.work[slot];
    if (work.product < 0) return;

    const bool first = work.product == 0;
    const int32_t k_blocks = sizes_of<kTileRows>(args, work.product).k_blocks;
    const int32_t cols = first ? args.hidden : args.intermediate;
    const PackedWeight packed{first ? 2 * args.intermediate : args.hidden, cols};
    const T* const block_a =
        static_cast<const T*>(first ? args.gate_up : args.down) + work.slot * packed.elements() +
        static_cast<int64_t>(2 * work.row_block) * k_blocks * PackedWeight::kBlockElements;
    // Where a matrix ends within the tile its last block comes twice: nobody stores the copy's rows.
    const int32_t to_block_b = 2 * work.row_block + 1 < static_cast<int32_t>(packed.row_blocks())
                                   ? k_blocks * static_cast<int32_t>(PackedWeight::kBlockElements)
                                   : 0;

    RoutedRow* const routes = shared.routes[turn % 2];
#pragma unroll
    for (int32_t row = thread; row < kColumns; row += kGroupThreads) {
      if (row >= work.rows) break;
      RoutedRow route = args.plan.rows[work.row_begin + row];
      if (first) route.pair /= args.k;
      routes[row] = route;
    }
    if (!first) {  // all pieces of these rows of h must be there
      counter_wait(args.plan.tile_arrivals + work.tile, 2 * sizes_of<kTileRows>(args, 0).row_blocks);
    }
    named_barrier_sync(kProducerBarrier, kGroupThreads);
    mbarrier_arrive(&shared.work_empty[slot]);
    const T* const source = static_cast<const T*>(first ? args.x : args.h) + chunk * 8;
    uint32_t offsets[kPasses];  // of the source rows, in elements / 8
#pragma unroll
    for (int i = 0; i < kPasses; ++i) {
      const int32_t row = row0 + i * kRowsAPass;
      const int32_t from = first ? routes[row].pair : work.row_begin + row;
      offsets[i] = static_cast<uint32_t>(from) * static_cast<uint32_t>(cols / 8);
    }

    for (int32_t block = 0; block < k_blocks; ++block) {
      mbarrier_wait(&shared.empty[ring.stage], ring.parity ^ 1);
      // The next tile's routes take the place of those of the tile before. That one has been stored by the
      // time block kStages + 2 has room; waited for before the last block, since this one cannot have been
      // stored then.
      if (turn > 0 && block == min(kStages + 2, k_blocks - 1)) mbarrier_wait(&shared.stored, (turn - 1) % 2);
      if (leader) {
        uint64_t* const full = &shared.full[ring.stage];
        uint8_t* const to = shared.weights[ring.stage];
        const T* const from = block_a + block * PackedWeight::kBlockElements;
        mbarrier_arrive_expect(full, 2 * kBlockBytes);
        if (work.same_weights) {
          bulk_copy_multicast(to + rank * kBlockBytes, from + rank * to_block_b, kBlockBytes, full, policy,
                              (1 << kClusterBlocks) - 1);
        } else {
          bulk_copy(to, from, kBlockBytes, full, policy);
          bulk_copy(to + kBlockBytes, from + to_block_b, kBlockBytes, full, policy);
        }
      }
      const uint32_t to = tokens0 + ring.stage * (kColumns * kRowBytes);
      const bool inside = block * kBlockK + chunk * 8 < cols;
      const T* const from = source + (inside ? block * kBlockK : -chunk * 8);
#pragma unroll
      for (int i = 0; i < kPasses; ++i) {
        // Rows past the end are left as they are: they only reach columns that nobody stores.
        if (row0 + i * kRowsAPass < work.rows)
          copy16_async(to + i * kRowsAPass * kRowBytes, from + static_cast<uint64_t>(offsets[i]) * 8, inside);
      }
      copies_arrive(&shared.full[ring.stage]);
      ring.advance();
    }
  }
}

// ---------------------------------------------------------------- kernels: the consumers

/// d0 and d1 [64, kWidth] = this consumer's 128 weight rows · tokensᵀ, ascending along K: groups of eight
/// rows go to d0 and d1 in turn.
template <class T, int kWidth>
__device__ __forceinline__ void multiply(Shared& shared, Ring<kStages>& ring, int consumer, int32_t k_blocks,
                                         float (&d0)[kWidth / 2], float (&d1)[kWidth / 2]) {
  const uint64_t weights0 = wgmma_descriptor_alternate(smem_address(shared.weights) + consumer * kBlockBytes);
  const uint64_t tokens0 = wgmma_descriptor(smem_address(shared.tokens));
  const auto release = [&, lane = threadIdx.x % kWarpSize](uint32_t stage) {  // to both, who write there
    if (lane < kClusterBlocks) mbarrier_arrive_in_cluster(&shared.empty[stage], lane);
  };
#pragma unroll
  for (int i = 0; i < kWidth / 2; ++i) d0[i] = 0, d1[i] = 0;
  uint32_t previous = 0;
  for (int32_t block = 0; block < k_blocks; ++block) {
    mbarrier_wait(&shared.full[ring.stage], ring.parity);
    fence_async_proxy();  // the tokens came by ordinary copies
    const uint64_t weights = weights0 + ring.stage * (2 * kBlockBytes >> 4);
    const uint64_t tokens = tokens0 + ring.stage * (kColumns * kRowBytes >> 4);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < kBlockK / 16; ++step) {
      wgmma_64xNx16<T, kWidth>(d0, weights + 2 * step, tokens + 2 * step);
      wgmma_64xNx16<T, kWidth>(d1, weights + 64 + 2 * step, tokens + 2 * step);
    }
    wgmma_commit();
    if (block > 0) {
      wgmma_wait<1>();
      release(previous);
    }
    previous = ring.stage;
    ring.advance();
  }
  wgmma_wait<0>();
  release(previous);
}

/// d0 are gate rows, d1 their up rows: 16 columns of h a warp, 32 bytes a token.
template <class T, int kWidth>
__device__ __forceinline__ void store_h(const GroupedGemmArgs& args, const Work& work, int consumer, int warp,
                                        uint8_t (*staging)[512], const float (&d0)[kWidth / 2],
                                        const float (&d1)[kWidth / 2]) {
  const int lane = threadIdx.x % kWarpSize;
  const int32_t col = work.row_block * (kTileRows / 2) + consumer * (kBlockRows / 2) + warp * 16;
  const Turned16 turned(lane);
  T* const out = static_cast<T*>(args.h) + static_cast<int64_t>(work.row_begin) * args.intermediate + col +
                 turned.half * 8;
  const bool inside = col + turned.half * 8 < args.intermediate;
  constexpr int kRounds = ceil_div(kWidth, 16);  // of 16 tokens, four at a time
#pragma unroll
  for (int first = 0; first < kRounds; first += 4) {
    if (first > 0) __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (first + i >= kRounds) break;
      uint32_t m[4] = {};
#pragma unroll
      for (int q = 0; q < 2; ++q) {
        const int j = (first + i) * 2 + q;
        if (j * 8 < kWidth) {
          const float *const g = d0 + j * 4, *const u = d1 + j * 4;
          m[2 * q] = pack_floats<T>(silu(g[0]) * u[0], silu(g[1]) * u[1]);
          m[2 * q + 1] = pack_floats<T>(silu(g[2]) * u[2], silu(g[3]) * u[3]);
        }
      }
      store_matrices_transposed(smem_address(staging[i]) + turned.write_at, m[0], m[1], m[2], m[3]);
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (first + i >= kRounds) break;
      const int32_t row = (first + i) * 16 + turned.token;
      const uint4 value = *reinterpret_cast<const uint4*>(staging[i] + turned.read_at);
      if (row < work.rows && inside)
        *reinterpret_cast<uint4*>(out + static_cast<int64_t>(row) * args.intermediate) = value;
    }
  }
}

/// 32 columns of y a warp, 64 bytes a token, to the row of its pair.
template <class T, int kWidth>
__device__ __forceinline__ void store_y(const GroupedGemmArgs& args, const Work& work, int consumer, int warp,
                                        uint8_t (*staging)[512], const RoutedRow* routes,
                                        const float (&d0)[kWidth / 2], const float (&d1)[kWidth / 2]) {
  const int lane = threadIdx.x % kWarpSize;
  const int32_t col = work.row_block * kTileRows + consumer * kBlockRows + warp * 32;
  const int write_token = lane % 8, write_chunk = lane / 8;
  const uint32_t write_at = write_token * 64 + ((write_chunk ^ (write_token >> 1)) << 4);
  const int read_token = lane / 4, chunk = lane % 4;
  const uint32_t read_at = read_token * 64 + ((chunk ^ (read_token >> 1)) << 4);
  T* const out = static_cast<T*>(args.y) + col + chunk * 8;
  const bool inside = col + chunk * 8 < args.hidden;
  constexpr int kRounds = kWidth / 8;  // of 8 tokens, four at a time
#pragma unroll
  for (int first = 0; first < kRounds; first += 4) {
    if (first > 0) __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int j = first + i;
      if (j >= kRounds) break;
      const float4 two = *reinterpret_cast<const float4*>(routes + j * 8 + 2 * (lane % 4));
      const float *const a = d0 + j * 4, *const b = d1 + j * 4;
      store_matrices_transposed(
          smem_address(staging[i]) + write_at, pack_floats<T>(a[0] * two.y, a[1] * two.w),
          pack_floats<T>(b[0] * two.y, b[1] * two.w), pack_floats<T>(a[2] * two.y, a[3] * two.w),
          pack_floats<T>(b[2] * two.y, b[3] * two.w));
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (first + i >= kRounds) break;
      const int32_t row = (first + i) * 8 + read_token;
      const uint4 value = *reinterpret_cast<const uint4*>(staging[i] + read_at);
      if (row < work.rows && inside)
        *reinterpret_cast<uint4*>(out + static_cast<int64_t>(routes[row].pair) * args.hidden) = value;
    }
  }
}

template <class T, int kWidth>
__device__ __forceinline__ void compute_tile(const GroupedGemmArgs& args, Shared& shared, Ring<kStages>& ring,
                                             const Work& work, const RoutedRow* routes, int consumer) {
  const int thread = threadIdx.x % kGroupThreads, warp = thread / kWarpSize;
  uint8_t(*const staging)[512] = shared.staging[consumer * 4 + warp];
  float d0[kWidth / 2], d1[kWidth / 2];
  multiply<T, kWidth>(shared, ring, consumer, sizes_of<kTileRows>(args, work.product).k_blocks, d0, d1);
  if (work.product == 0) {
    store_h<T, kWidth>(args, work, consumer, warp, staging, d0, d1);
    named_barrier_sync(kConsumerBarrier + consumer, kGroupThreads);
    if (thread == 0 && work.rows > 0) {
      __threadfence();
      add_release(args.plan.tile_arrivals + work.tile, 1);
    }
  } else {
    store_y<T, kWidth>(args, work, consumer, warp, staging, routes, d0, d1);
  }
  mbarrier_arrive(&shared.stored);
}

template <class T>
__device__ __forceinline__ void consume(const GroupedGemmArgs& args, Shared& shared, int consumer) {
  Ring<kStages> ring;
  for (uint32_t turn = 0;; ++turn) {
    const uint32_t slot = turn % kWorkSlots;
    mbarrier_wait(&shared.work_full[slot], turn / kWorkSlots % 2);
    const Work work = shared.work[slot];
    mbarrier_arrive(&shared.work_empty[slot]);
    if (work.product < 0) return;
    const auto tile = [&]<int kWidth>() __attribute__((always_inline)) {
      compute_tile<T, kWidth>(args, shared, ring, work, shared.routes[turn % 2], consumer);
    };
    const int32_t width = round_up(work.rows, 8);  // most tiles are of 100 to 150 rows
    if (width <= 40) {
      tile.template operator()<40>();
    } else if (width <= 56) {
      tile.template operator()<56>();
    } else if (width <= 72) {
      tile.template operator()<72>();
    } else if (width <= 88) {
      tile.template operator()<88>();
    } else if (width <= 104) {
      tile.template operator()<104>();
    } else if (width <= 112) {
      tile.template operator()<112>();
    } else if (width <= 120) {
      tile.template operator()<120>();
    } else if (width <= 128) {
      tile.template operator()<128>();
    } else if (width <= 136) {
      tile.template operator()<136>();
    } else if (width <= 144) {
      tile.template operator()<144>();
    } else if (width <= 152) {
      tile.template operator()<152>();
    } else {
      tile.template operator()<160>();
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kGemmThreads, 1) __cluster_dims__(kClusterBlocks)
    grouped_gemm_wide_kernel(const __grid_constant__ GroupedGemmArgs args) {
  extern __shared__ __align__(1024) uint8_t shared_bytes[];
  Shared& shared = *reinterpret_cast<Shared*>(shared_bytes);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      mbarrier_init(&shared.full[i], kGroupThreads + 1);  // every producer thread's copies, and the weights
      mbarrier_init(&shared.empty[i], kClusterBlocks * kConsumerWarps);
    }
    for (int i = 0; i < kWorkSlots; ++i) {
      mbarrier_init(&shared.work_full[i], 1);
      mbarrier_init(&shared.work_empty[i], kGemmThreads);
    }
    for (int i = 0; i < kTicketSlots; ++i) mbarrier_init(&shared.ticket_full[i], 1);
    mbarrier_init(&shared.stored, 2 * kGroupThreads);
    mbarrier_init_fence();
  }
  __syncwarp();
  cluster_arrive_relaxed();
  cluster_wait();
  dependency_wait();
  dependents_launch();
  const int group = threadIdx.x / kGroupThreads;
  if (group == 0) {
    registers_release<kProducerRegisters>();
    produce<T>(args, shared);
  } else {
    registers_acquire<kConsumerRegisters>();
    consume<T>(args, shared, group - 1);
  }
  // Not gone before all that the other block does to this one's memory is done: its last arrivals, too.
  __syncwarp();
  cluster_arrive();
  cluster_wait();
}

}  // namespace

void launch_grouped_gemm_wide(const GroupedGemmArgs& args, cudaStream_t stream) {
  with_element(args.dtype, [&]<class T>(T) {
    constexpr auto* kernel = grouped_gemm_wide_kernel<T>;
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared)));
    launch_dependent(kernel, static_cast<unsigned>(args.num_sms / kClusterBlocks * kClusterBlocks),
                     kGemmThreads, sizeof(Shared), stream, args);
  });
}

}  // namespace moerun
