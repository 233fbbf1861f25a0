#pragma once
// Copies of boxes of a matrix from global to shared memory by Hopper's tensor copy engine (PTX ISA, "Tensor
// copy": cp.async.bulk.tensor). A box lands with 128 bytes a row and the 128-byte swizzle that
// wgmma_descriptor (hopper.cuh) names; what lies outside the matrix becomes zeros and counts as transferred.
// cuTensorMapEncodeTiled, a function of the driver, is asked for through the runtime: libcuda is not linked,
// and a machine without a driver still runs what needs no GPU.
#include <cuda.h>

#include <array>

#include "kernels/cuda/hopper.cuh"

namespace moerun::cuda {

/// Of a row-major array of 16-bit elements, innermost dimension first: `sizes` in elements, `box` what one
/// copy brings, 64 elements wide. `data` is aligned to 16 bytes. Throws if the driver refuses it.
template <int kRank>
CUtensorMap tensor_map(const void* data, const std::array<int64_t, kRank>& sizes,
                       const std::array<int32_t, kRank>& box) {
  static const auto encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
    CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault,
                                                &found));
    if (found != cudaDriverEntryPointSuccess) throw Error("the CUDA driver has no cuTensorMapEncodeTiled");
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
  }();
  cuuint64_t dims[kRank], strides[kRank];
  cuuint32_t boxes[kRank], steps[kRank];
  cuuint64_t stride = 2;
  for (int i = 0; i < kRank; ++i) {
    dims[i] = static_cast<cuuint64_t>(sizes[i]);
    boxes[i] = static_cast<cuuint32_t>(box[i]);
    steps[i] = 1;
    strides[i] = stride *= dims[i];  // of the next dimension, in bytes
  }
  CUtensorMap map;
  const CUresult status =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_UINT16, kRank, const_cast<void*>(data), dims, strides, boxes,
             steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS)
    throw Error("cuTensorMapEncodeTiled: CUDA driver error " + std::to_string(static_cast<int>(status)));
  return map;
}

__device__ __forceinline__ void tensor_map_prefetch(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

/// The box whose first element is (x, y), to shared memory; its bytes are counted on `barrier`.
__device__ __forceinline__ void tensor_copy(uint32_t shared, const CUtensorMap& map, int32_t x, int32_t y,
                                            uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
      "[%4];" ::"r"(shared),
      "l"(&map), "r"(x), "r"(y), "r"(smem_address(barrier))
      : "memory");
}
__device__ __forceinline__ void tensor_copy(uint32_t shared, const CUtensorMap& map, int32_t x, int32_t y,
                                            int32_t z, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, "
      "%4}], [%5];" ::"r"(shared),
      "l"(&map), "r"(x), "r"(y), "r"(z), "r"(smem_address(barrier))
      : "memory");
}
/// The same into every block of the cluster that `blocks` has a bit of, where this one has `shared`; counted
/// on their `barrier`.
__device__ __forceinline__ void tensor_copy_multicast(uint32_t shared, const CUtensorMap& map, int32_t x,
                                                      int32_t y, uint64_t* barrier, uint32_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1, {%2, %3}], [%4], %5;" ::"r"(shared),
      "l"(&map), "r"(x), "r"(y), "r"(smem_address(barrier)), "h"(static_cast<uint16_t>(blocks))
      : "memory");
}

}  // namespace moerun::cuda
