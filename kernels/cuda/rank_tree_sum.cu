#include "kernels/cuda/common.cuh"
#include "kernels/cuda/rank_tree_sum.h"

namespace moerun {

namespace {

using namespace moerun::cuda;

constexpr int kThreads = 128;
constexpr int kMaxLevels = 7;  // 64 ranks

/// A node of the tree, each value rounded to T.
template <class T, int kWidth>
struct Node {
  float value[kWidth];
  bool present = false;
};

template <class T, int kWidth>
__device__ Node<T, kWidth> join(const Node<T, kWidth>& left, const Node<T, kWidth>& right) {
  if (!left.present) return right;
  if (!right.present) return left;
  Node<T, kWidth> sum;
  sum.present = true;
#pragma unroll
  for (int i = 0; i < kWidth; ++i)
    sum.value[i] = Element<T>::to_float(Element<T>::from_float(left.value[i] + right.value[i]));
  return sum;
}

/// Sums a token's partial sums over ranks like a binary counter: `open[l]` is the finished subtree of 2^l
/// ranks that waits for its right half.
template <class T, class Vector>
__global__ void __launch_bounds__(kThreads) sum_kernel(const __grid_constant__ RankTreeSumArgs args) {
  constexpr int kWidth = sizeof(Vector) / sizeof(T);
  const int vectors = args.hidden / kWidth;
  const auto* const partials = static_cast<const Vector*>(args.partials);
  for (int token = blockIdx.x; token < args.num_tokens; token += gridDim.x) {
    uint64_t sources = 0;
    for (int i = 0; i < args.k; ++i)
      sources |= uint64_t{1} << args.rank_of[args.ids[static_cast<size_t>(token) * args.k + i]];
    for (int v = threadIdx.x; v < vectors; v += kThreads) {
      Node<T, kWidth> open[kMaxLevels], total;
      for (int rank = 0; rank < args.ranks; ++rank) {
        Node<T, kWidth> node;
        node.present = sources >> rank & 1;
        if (node.present) {
          union {
            Vector vector;
            T element[kWidth];
          } loaded;
          const size_t row = args.row_of ? args.row_of[static_cast<size_t>(rank) * args.num_tokens + token]
                                         : static_cast<size_t>(rank) * args.step_tokens + token;
          loaded.vector = partials[row * vectors + v];
#pragma unroll
          for (int i = 0; i < kWidth; ++i) node.value[i] = Element<T>::to_float(loaded.element[i]);
        }
        bool carrying = true;
#pragma unroll
        for (int level = 0; level < kMaxLevels; ++level) {
          if (!carrying) continue;
          if (rank >> level & 1) {
            node = join(open[level], node);
          } else {
            open[level] = node;
            carrying = false;
          }
        }
        total = node;  // after the last rank: the whole tree, since ranks are a power of two
      }
      union {
        Vector vector;
        T element[kWidth];
      } stored;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) stored.element[i] = Element<T>::from_float(total.value[i]);
      static_cast<Vector*>(args.out)[static_cast<size_t>(token) * vectors + v] = stored.vector;
    }
  }
}

}  // namespace

void launch_rank_tree_sum(const RankTreeSumArgs& args, cudaStream_t stream) {
  if (args.num_tokens == 0) return;
  with_element(args.dtype, [&]<class T>(T) {
    if (args.hidden % static_cast<int>(sizeof(uint4) / sizeof(T)) == 0)
      sum_kernel<T, uint4><<<args.num_tokens, kThreads, 0, stream>>>(args);
    else
      sum_kernel<T, uint16_t><<<args.num_tokens, kThreads, 0, stream>>>(args);
  });
  CUDA_CHECK(cudaGetLastError());
}

}  // namespace moerun
