#pragma once
// Hopper's own instructions (sm_90a), one thin wrapper each; its matrix instruction is in wgmma.cuh. Names
// and semantics: PTX ISA 8.x/9.0, chapters "Asynchronous copy", "mbarrier", "griddepcontrol".
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "common.cuh"

namespace moerun::cuda {

__device__ __forceinline__ uint32_t smem_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// --- mbarrier: arrivals and transferred bytes, counted in shared memory ---

__device__ __forceinline__ void mbarrier_init(uint64_t* barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(smem_address(barrier)), "r"(arrivals));
}
/// Makes initialised barriers visible to the asynchronous copies.
__device__ __forceinline__ void mbarrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void mbarrier_arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(smem_address(barrier)) : "memory");
}
/// Arrives once and announces `bytes` that asynchronous copies will bring.
__device__ __forceinline__ void mbarrier_arrive_expect(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(smem_address(barrier)),
               "r"(bytes)
               : "memory");
}
/// Waits until the phase with this parity is over.
__device__ __forceinline__ void mbarrier_wait(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "WAIT:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra WAIT;\n}" ::"r"(smem_address(barrier)),
      "r"(parity)
      : "memory");
}

/// A position in a ring of stages in shared memory, and the parity of its present use.
template <int kStages>
struct Ring {
  uint32_t stage = 0, parity = 0;
  __device__ void advance() {
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
};

// --- copies ---

/// `bytes` (a multiple of 16) from global to shared memory by the bulk copy engine; counted on `barrier`.
__device__ __forceinline__ void bulk_copy(void* shared, const void* global, uint32_t bytes, uint64_t* barrier,
                                          uint64_t cache_policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, "
      "[%3], %4;" ::"r"(smem_address(shared)),
      "l"(global), "r"(bytes), "r"(smem_address(barrier)), "l"(cache_policy)
      : "memory");
}
/// The same into every block of the cluster that `blocks` has a bit of, where this one has `shared`; counted
/// on their `barrier`.
__device__ __forceinline__ void bulk_copy_multicast(void* shared, const void* global, uint32_t bytes,
                                                    uint64_t* barrier, uint64_t cache_policy,
                                                    uint32_t blocks) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint "
      "[%0], [%1], %2, [%3], %4, %5;" ::"r"(smem_address(shared)),
      "l"(global), "r"(bytes), "r"(smem_address(barrier)), "h"(static_cast<uint16_t>(blocks)),
      "l"(cache_policy)
      : "memory");
}
__device__ __forceinline__ uint64_t policy_evict_first() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ __forceinline__ uint64_t policy_evict_normal() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

/// 16 bytes from global to shared memory, past L1; zeros instead when !valid.
__device__ __forceinline__ void copy16_async(uint32_t shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}
/// Arrives on `barrier` (whose count includes this arrival) once this thread's copies so far have landed.
__device__ __forceinline__ void copies_arrive(uint64_t* barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(smem_address(barrier))
               : "memory");
}

/// Closes a group of this thread's copies; waits until all but the last kGroups groups have landed.
__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kGroups>
__device__ __forceinline__ void copies_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

/// Orders ordinary (generic-proxy) accesses to shared memory before those of wgmma and the bulk copies. It is
/// a barrier of the thread's whole memory (MEMBAR): not for a loop that feeds the tensor cores.
__device__ __forceinline__ void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
/// The same for global memory.
__device__ __forceinline__ void fence_async_proxy_global() {
  asm volatile("fence.proxy.async.global;" ::: "memory");
}

// --- registers, named barriers, dependent launches ---

template <int kRegisters>
__device__ __forceinline__ void registers_release() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void registers_acquire() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
__device__ __forceinline__ void named_barrier_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
__device__ __forceinline__ void named_barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
/// Programmatic dependent launch: wait for everything the previous kernel of the stream wrote.
__device__ __forceinline__ void dependency_wait() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
/// Lets the next kernel of the stream start its prologue. Comes after dependency_wait(), so that what ran
/// before this kernel is complete for that prologue: some kernels read early what is older than their
/// predecessor. A kernel that was launched with Follow::anything needs no wait: all before it is
/// complete.
__device__ __forceinline__ void dependents_launch() { asm volatile("griddepcontrol.launch_dependents;"); }

__device__ __forceinline__ int32_t load_acquire(const int32_t* p) {
  int32_t v;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
  return v;
}
/// Waits until the counter is `wanted` or more.
__device__ __forceinline__ void counter_wait(const int32_t* counter, int32_t wanted) {
  while (load_acquire(counter) < wanted) {
  }
}
__device__ __forceinline__ void add_release(int32_t* p, int32_t v) {
  asm volatile("red.release.gpu.global.add.s32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}

// --- clusters of thread blocks ---

__device__ __forceinline__ uint32_t cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
/// The two halves of a barrier of all threads of the cluster; shared memory written before is seen after.
__device__ __forceinline__ void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
/// For a barrier that orders no memory, or only what mbarrier_init_fence() has ordered.
__device__ __forceinline__ void cluster_arrive_relaxed() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
/// Arrives on the barrier that the cluster's block `rank` has where this one has `barrier`. It tells of reads
/// that are over and orders no writes: a release at the cluster's scope would be a fence of the whole GPU.
__device__ __forceinline__ void mbarrier_arrive_in_cluster(uint64_t* barrier, uint32_t rank) {
  asm volatile(
      "{\n.reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(smem_address(barrier)),
      "r"(rank)
      : "memory");
}
/// Into the shared memory of the cluster's block `rank`, where it has `p`.
__device__ __forceinline__ void store_in_cluster(int32_t* p, uint32_t rank, int32_t value) {
  asm volatile(
      "{\n.reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "st.shared::cluster.b32 [there], %2;\n}" ::"r"(smem_address(p)),
      "r"(rank), "r"(value)
      : "memory");
}
__device__ __forceinline__ void store_in_cluster(float* p, uint32_t rank, float value) {
  asm volatile(
      "{\n.reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "st.shared::cluster.f32 [there], %2;\n}" ::"r"(smem_address(p)),
      "r"(rank), "f"(value)
      : "memory");
}

/// The same, and the block's `barrier` counts the four bytes.
__device__ __forceinline__ void store_in_cluster(int32_t* p, uint32_t rank, int32_t value,
                                                 uint64_t* barrier) {
  asm volatile(
      "{\n.reg .b32 there, counted;\n"
      "mapa.shared::cluster.u32 there, %0, %2;\n"
      "mapa.shared::cluster.u32 counted, %1, %2;\n"
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [there], %3, [counted];\n}" ::"r"(
          smem_address(p)),
      "r"(smem_address(barrier)), "r"(rank), "r"(value)
      : "memory");
}

__device__ __forceinline__ void prefetch_l2(const void* global) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(global));
}

// --- matrix fragments ---

/// Four 8×8 matrices of 16-bit elements to shared memory; lane l gives the address of row l%8 of matrix l/8.
__device__ __forceinline__ void store_matrices(uint32_t row_address, uint32_t m0, uint32_t m1, uint32_t m2,
                                               uint32_t m3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row_address), "r"(m0),
               "r"(m1), "r"(m2), "r"(m3)
               : "memory");
}

/// Four 8×8 matrices of 16-bit elements to shared memory, each transposed; lane l gives the address of row
/// l%8 of matrix l/8.
__device__ __forceinline__ void store_matrices_transposed(uint32_t row_address, uint32_t m0, uint32_t m1,
                                                          uint32_t m2, uint32_t m3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row_address),
               "r"(m0), "r"(m1), "r"(m2), "r"(m3)
               : "memory");
}

/// How a warp turns 16 tokens of 16 columns around in 512 bytes of shared memory, 32 bytes a token: it writes
/// them by store_matrices_transposed, whose matrix i is (eight tokens, half of the columns) number i, and
/// each lane reads half of a token. Halves trade places every four tokens: no bank conflicts.
struct Turned16 {
  int token, half;             ///< that the lane reads
  uint32_t write_at, read_at;  ///< the lane's offsets, in bytes
  __device__ explicit Turned16(int lane) : token(lane / 2), half(lane % 2) {
    const int write_token = lane / 16 * 8 + lane % 8, write_half = lane / 8 % 2;
    write_at = write_token * 32 + ((write_half ^ (write_token >> 2 & 1)) << 4);
    read_at = token * 32 + ((half ^ (token >> 2 & 1)) << 4);
  }
};

/// d += a·b, m16n8k16, float32 accumulators.
template <class T>
__device__ __forceinline__ void mma_16x8x16(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                            uint32_t b0, uint32_t b1) {
  if constexpr (std::is_same_v<T, __half>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  }
}

// --- launches ---

/// How a launch follows what its stream holds.
enum class Follow {
  kernel,    ///< a kernel, whose end its prologue may overlap
  anything,  ///< what another stream did, too
};

template <class... Params, class... Args>
void launch(Follow follow, void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes,
            cudaStream_t stream, Args&&... args) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = follow == Follow::kernel;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...));
}

/// Launches with the programmatic-dependency attribute, so that the kernel's prologue may overlap the end of
/// the previous kernel of the stream. The kernel must call dependency_wait() before it reads or writes
/// anything that another kernel touches.
template <class Kernel, class... Args>
void launch_dependent(Kernel kernel, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                      Args&&... args) {
  launch(Follow::kernel, kernel, grid, block, shared_bytes, stream, std::forward<Args>(args)...);
}

}  // namespace moerun::cuda
