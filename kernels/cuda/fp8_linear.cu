// Products of FP8 weights with all rows of a step: persistent blocks go through tiles of 128 or 256 features
// × up to 128 rows in a fixed order. Tiles of 256 × 128, and those of a tree, go to two blocks of a cluster
// side by side along the rows: each copies half of their weights to both. Rows are gone through in bands that
// stay in the L2 cache while all features pass.
#include "kernels/cuda/fp8_linear.h"

#include <array>

#include "kernels/cuda/fp8_gemm.cuh"
#include "kernels/cuda/limits.h"

namespace moerun {
namespace {

using namespace cuda;

constexpr int kProducerBarrier = 1;

/// How the product is cut: tiles of 128 or 256 features × up to 64 or 128 rows.
struct Tiling {
  int32_t blocks = 0, tokens = 0;
  bool tree = false;
  constexpr int32_t cluster_blocks() const { return tokens == 128 && (blocks == 2 || tree) ? 2 : 1; }
};

constexpr int64_t kBandBytes =
    8 << 20;  // of rows: with the weights of a product they fit half of the L2 cache

struct Params {
  Fp8LinearArgs args;
  CUtensorMap x;
  int32_t tile_parts = 1;  ///< of K, each with tiles of its own
  int32_t chunks = 1;      ///< of K, in turn in a tile
  int32_t k_groups = 0;    ///< of a whole row
  int32_t k_blocks = 0;    ///< of a part
  int32_t feature_tiles = 0;
  int32_t row_tiles = 0;  ///< a multiple of the cluster's blocks
  int32_t band = 0;       ///< clusters' row tiles that all features pass before the next ones
};

template <int kBlocks, int kTokens_, bool kTree>
struct Shared {
  static constexpr int kTokens = kTokens_, kClusterBlocks = Tiling{kBlocks, kTokens, kTree}.cluster_blocks();
  Fp8Stages<kBlocks, kTokens, kBlocks == 2 ? 4 : 6> stages;
  alignas(16) uint8_t staging[kConsumerWarps][2][1024];  // where a warp turns its results around
};
static_assert(sizeof(Shared<2, 128, false>) <= 227 * 1024 && sizeof(Shared<1, 128, true>) <= 227 * 1024);

/// One tile of one part.
struct Tile {
  int32_t part, features, first_row, rows;  ///< `features`: index of the tile along them
};
/// Calls `work` with each of this block's tiles.
template <class Shared, class Work>
__device__ __forceinline__ void each_tile(const Params& p, Work work) {
  constexpr int kClusterBlocks = Shared::kClusterBlocks;
  const int32_t tiles = p.tile_parts * p.feature_tiles * p.row_tiles;
  const auto rank = static_cast<int32_t>(kClusterBlocks > 1 ? cluster_rank() : 0);
  const auto first = static_cast<int32_t>(blockIdx.x) - rank;
  for (int32_t i = first; i < tiles; i += static_cast<int32_t>(gridDim.x)) {
    const int32_t index = i / kClusterBlocks, groups = p.row_tiles / kClusterBlocks;
    const int32_t in_part = index % (groups * p.feature_tiles);
    const int32_t first_group = in_part / (p.band * p.feature_tiles) * p.band;
    const int32_t in_band = in_part - first_group * p.feature_tiles, band = min(p.band, groups - first_group);
    const int32_t first_row =
        ((first_group + in_band % band) * kClusterBlocks + rank) * static_cast<int32_t>(Shared::kTokens);
    work(Tile{.part = index / (groups * p.feature_tiles),
              .features = in_band / band,
              .first_row = first_row,
              .rows = max(0, min(Shared::kTokens, static_cast<int32_t>(p.args.rows) - first_row))});
  }
}

// ---------------------------------------------------------------- kernels

template <int kBlocks, int kTokens, bool kTree>
__device__ __forceinline__ void produce(const Params& p, Shared<kBlocks, kTokens, kTree>& shared) {
  using S = Shared<kBlocks, kTokens, kTree>;
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const uint64_t policy = policy_evict_normal();
  const Fp8PackedWeight packed{p.args.out_features, p.args.in_features};
  const int64_t rows_apart = p.k_groups * Fp8PackedWeight::kBlockBytes;
  Ring<decltype(shared.stages)::kStages> ring;
  each_tile<S>(p, [&](const Tile& tile) {
    named_barrier_sync(kProducerBarrier, kGroupThreads);  // the places of the tile before are read
    if (thread < tile.rows)
      shared.stages.places[thread] =
          static_cast<uint32_t>(tile.first_row + thread) * static_cast<uint32_t>(p.k_groups) +
          static_cast<uint32_t>(tile.part * p.k_blocks);
    named_barrier_sync(kProducerBarrier, kGroupThreads);
    const int32_t block = tile.features * kBlocks;
    fill<S::kClusterBlocks>(
        shared.stages, ring,
        {.weights = p.args.w + block * rows_apart + tile.part * p.k_blocks * Fp8PackedWeight::kBlockBytes,
         // Where W ends within the tile its last block comes twice: nobody stores the copy's
         // features.
         .to_second = block + 1 < packed.row_blocks() ? rows_apart : 0,
         .same_weights = S::kClusterBlocks > 1,
         .values = p.args.x.values,
         .scales = p.args.x.scales,
         .rows = tile.rows,
         .k_blocks = p.chunks * p.k_blocks,
         .map = &p.x,
         .first_row = tile.first_row,
         .first_block = tile.part * p.k_blocks},
        policy);
  });
}

/// Two neighbouring features of the bias.
template <class T>
__device__ __forceinline__ float2 bias_at(const Params& p, int32_t feature) {
  if (!p.args.bias || feature >= p.args.out_features) return make_float2(0, 0);
  return unpack_floats<T>(*reinterpret_cast<const uint32_t*>(static_cast<const T*>(p.args.bias) + feature));
}

template <class T, int kPieces, int kColumns>
__device__ __forceinline__ void store(const Params& p, const Tile& tile, int32_t first_feature,
                                      const Fp8Share& share, uint8_t (*staging)[1024],
                                      const float (&acc)[kPieces][kColumns / 2]) {
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x % kGroupThreads / kWarpSize;
  const int32_t first = first_feature + share.block * kFp8BlockRows + share.row;
  const int32_t token = share.token + warp * 16, rows = tile.rows - token;
  T* const out = static_cast<T*>(p.args.out) +
                 (tile.part * p.args.rows + tile.first_row + token) * p.args.out_features + first;
  store_turned<kPieces, kColumns>(
      staging,
      [&](int piece, int half, int j) {
        const float* const v = acc[piece] + 4 * j + 2 * half;
        const float2 bias = bias_at<T>(p, first + piece * kFp8BlockRows + 8 * j + lane % 4 * 2);
        return pack_floats<T>(v[0] + bias.x, v[1] + bias.y);
      },
      [&](int row, int column, uint4 value) {
        if (row < rows && first + column < p.args.out_features)
          *reinterpret_cast<uint4*>(out + row * p.args.out_features + column) = value;
      });
}

template <class T, int kBlocks, int kTokens>
__device__ __forceinline__ void consume(const Params& p, Shared<kBlocks, kTokens, false>& shared,
                                        int consumer) {
  using S = Shared<kBlocks, kTokens, false>;
  uint8_t(*const staging)[1024] = shared.staging[threadIdx.x / kWarpSize - kGroupThreads / kWarpSize];
  Ring<decltype(shared.stages)::kStages> ring;
  each_tile<S>(
      p, [&](const Tile& tile) __attribute__((always_inline)) {
        const auto compute = [&]<int kPieces, int kColumns>(const Fp8Share& share)
            __attribute__((always_inline)) {
          float acc[kPieces][kColumns / 2];
          multiply<S::kClusterBlocks, kPieces, kColumns>(shared.stages, ring, share, p.k_blocks, acc);
          store<T, kPieces, kColumns>(p, tile, tile.features * (kBlocks * kFp8BlockRows), share, staging,
                                      acc);
        };
        if constexpr (kTokens > kConsumerTokens)  // half of the tokens each
          compute.template operator()<kBlocks, kFp8BlockRows>({.token = consumer * kConsumerTokens});
        else if constexpr (kBlocks == 2)  // half of the weights each
          compute.template operator()<1, kFp8BlockRows>({.block = consumer});
        else
          compute.template operator()<1, kFp8BlockRows / 2>({.row = consumer * (kFp8BlockRows / 2)});
      });
}

/// The rounded sum of two chunks' products, each rounded: sum[2j + h] is acc[4j + 2h] and the next of
/// `multiply`.
template <class T, int kClusterBlocks, class Stages>
__device__ __forceinline__ void multiply_pair(Stages& stages, Ring<Stages::kStages>& ring,
                                              const Fp8Share& share, int32_t k_blocks,
                                              uint32_t (&sum)[kFp8BlockRows / 4]) {
#pragma unroll 1
  for (int chunk = 0; chunk < 2; ++chunk) {
    float acc[1][kFp8BlockRows / 2];
    multiply<kClusterBlocks, 1, kFp8BlockRows>(stages, ring, share, k_blocks, acc);
#pragma unroll
    for (int i = 0; i < kFp8BlockRows / 4; ++i) {
      const uint32_t rounded = pack_floats<T>(acc[0][2 * i], acc[0][2 * i + 1]);
      sum[i] = chunk == 0 ? rounded : add_pairs<T>(sum[i], rounded);
    }
  }
}

/// The chunks of each tile in a binary tree: two pairs of chunks meet in registers, two of those in `out`.
template <class T>
__device__ __forceinline__ void consume_tree(const Params& p, Shared<1, 128, true>& shared, int consumer) {
  using S = Shared<1, 128, true>;
  uint8_t(*const staging)[1024] = shared.staging[threadIdx.x / kWarpSize - kGroupThreads / kWarpSize];
  const Fp8Share share{.token = consumer * kConsumerTokens};
  const int32_t warp_token = share.token + static_cast<int32_t>(threadIdx.x % kGroupThreads / kWarpSize) * 16;
  Ring<decltype(shared.stages)::kStages> ring;
  each_tile<S>(
      p, [&](const Tile& tile) __attribute__((always_inline)) {
        const int32_t first = tile.features * kFp8BlockRows, rows = tile.rows - warp_token;
        T* const out =
            static_cast<T*>(p.args.out) + (tile.first_row + warp_token) * p.args.out_features + first;
#pragma unroll 1
        for (int32_t chunk = 0; chunk < p.chunks; chunk += 4) {
          uint32_t sum[kFp8BlockRows / 4];
          multiply_pair<T, S::kClusterBlocks>(shared.stages, ring, share, p.k_blocks, sum);
          if (p.chunks > 2) {
            uint32_t other[kFp8BlockRows / 4];
            multiply_pair<T, S::kClusterBlocks>(shared.stages, ring, share, p.k_blocks, other);
#pragma unroll
            for (int i = 0; i < kFp8BlockRows / 4; ++i) sum[i] = add_pairs<T>(sum[i], other[i]);
          }
          store_turned<1, kFp8BlockRows>(
              staging, [&](int, int half, int j) { return sum[2 * j + half]; },
              [&](int row, int column, uint4 value) {
                if (row >= rows || first + column >= p.args.out_features) return;
                auto* const at = reinterpret_cast<uint4*>(out + row * p.args.out_features + column);
                *at = chunk == 0 ? value : add_rounded<T>(*at, value);  // which this thread wrote
              });
        }
      });
}

template <class T, int kBlocks, int kTokens, bool kTree>
__global__ void __launch_bounds__(kGemmThreads, 1)
    __cluster_dims__(Shared<kBlocks, kTokens, kTree>::kClusterBlocks)
        fp8_linear_kernel(const __grid_constant__ Params p) {
  using S = Shared<kBlocks, kTokens, kTree>;
  extern __shared__ __align__(1024) uint8_t shared_bytes[];
  auto& shared = *reinterpret_cast<S*>(shared_bytes);
  if (threadIdx.x == 0) {
    shared.stages.init(S::kClusterBlocks);
    mbarrier_init_fence();
  }
  run_warpgroups<S::kClusterBlocks>([&] { produce(p, shared); },
                                    [&](int consumer) {
                                      if constexpr (kTree)
                                        consume_tree<T>(p, shared, consumer);
                                      else
                                        consume<T>(p, shared, consumer);
                                    });
}

// ---------------------------------------------------------------- launchers

/// The product cut by `tiling`.
Params cut(const Fp8LinearArgs& args, const Tiling& tiling) {
  const auto rows = static_cast<int32_t>(args.rows);
  Params p{.args = args, .k_groups = static_cast<int32_t>(scale_groups(args.in_features))};
  p.k_blocks = p.k_groups / args.parts;
  (args.tree ? p.chunks : p.tile_parts) = args.parts;
  p.feature_tiles = static_cast<int32_t>(ceil_div<int64_t>(args.out_features, tiling.blocks * kFp8BlockRows));
  p.row_tiles = round_up(ceil_div(rows, tiling.tokens), tiling.cluster_blocks());
  const int64_t bytes =
      int64_t{p.chunks} * p.k_blocks * kScaleGroup * tiling.tokens * tiling.cluster_blocks();
  p.band = static_cast<int32_t>(std::max<int64_t>(kBandBytes / std::max<int64_t>(bytes, 1), 1));
  return p;
}

/// The least time by a plain model: waves of tiles, in the time of 64 × 128 products.
Tiling tiling_for(const Fp8LinearArgs& args) {
  constexpr std::array kTilings{Tiling{2, 128}, Tiling{1, 128}, Tiling{2, 64}, Tiling{1, 64}};
  constexpr int64_t kFillAndStore = 1;
  Tiling best;
  int64_t least = 0;
  for (const Tiling& tiling : kTilings) {
    const Params p = cut(args, tiling);
    const int64_t tiles = int64_t{args.parts} * p.feature_tiles * p.row_tiles;
    const int64_t cost = ceil_div<int64_t>(tiles, args.num_sms) *
                         (tiling.blocks * tiling.tokens / kConsumerTokens + kFillAndStore);
    if (best.blocks == 0 || cost < least) best = tiling, least = cost;
  }
  return best;
}

template <class T, int kBlocks, int kTokens, bool kTree = false>
void launch_tiling(const Fp8LinearArgs& args, cudaStream_t stream) {
  using S = Shared<kBlocks, kTokens, kTree>;
  Params p = cut(args, {kBlocks, kTokens, kTree});
  p.x = fp8_rows_map<kTokens>(args.x.values, args.rows, p.k_groups);
  constexpr auto* kernel = fp8_linear_kernel<T, kBlocks, kTokens, kTree>;
  CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(S)));
  const int32_t blocks = std::min(p.tile_parts * p.feature_tiles * p.row_tiles,
                                  args.num_sms / S::kClusterBlocks * S::kClusterBlocks);
  launch_dependent(kernel, static_cast<unsigned>(blocks), kGemmThreads, sizeof(S), stream, p);
}

}  // namespace

void launch_fp8_linear(const Fp8LinearArgs& args, cudaStream_t stream) {
  if (args.out_features % limits::kVector != 0 || args.in_features % limits::kVector != 0)
    throw Error("fp8_linear: numbers of features must be multiples of 8, not " +
                std::to_string(args.out_features) + " and " + std::to_string(args.in_features));
  if (args.parts > 1 && args.in_features % (args.parts * kScaleGroup) != 0)
    throw Error("fp8_linear: " + std::to_string(args.in_features) + " columns in " +
                std::to_string(args.parts) + " parts cut a group of " + std::to_string(kScaleGroup));
  if (args.tree && args.parts != 2 && args.parts != 4 && args.parts != 8)
    throw Error("fp8_linear: a tree has 2, 4 or 8 parts, not " + std::to_string(args.parts));
  if (args.rows == 0) return;
  if (args.tree)
    return with_element(args.dtype, [&]<class T>(T) { launch_tiling<T, 1, 128, true>(args, stream); });
  const Tiling tiling = tiling_for(args);
  with_element(args.dtype, [&]<class T>(T) {
    if (tiling.blocks == 2)
      tiling.tokens == 128 ? launch_tiling<T, 2, 128>(args, stream) : launch_tiling<T, 2, 64>(args, stream);
    else
      tiling.tokens == 128 ? launch_tiling<T, 1, 128>(args, stream) : launch_tiling<T, 1, 64>(args, stream);
  });
}

}  // namespace moerun
