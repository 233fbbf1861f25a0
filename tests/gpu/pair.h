#pragma once
#include <memory>

#include "device/cpu_device.h"
#include "device/cuda_device.h"
#include "tests/gpu/side.h"

namespace moerun::test {

/// Both devices, large enough for a test, made anew for each.
struct Pair {
  explicit Pair(DType dtype)
      : cpu_device(make_cpu_device()),
        cuda_device(make_cuda_device({.dtype = dtype, .gpu_memory_utilization = 0.2})),
        cpu(*cpu_device),
        gpu(*cuda_device),
        dtype(dtype) {
    StepLimits limits{.max_num_batched_tokens = 2048,
                      .max_num_seqs = 64,
                      .max_model_len = 4096,
                      .num_host_blocks = 4,
                      .max_routed_tokens = 2048,
                      .max_logit_rows = 128,
                      .num_heads = 32,
                      .num_kv_heads = 4,
                      .head_dim = 128,
                      .hidden_size = 2048,
                      .vocab_size = 8192,
                      .num_experts = 256,
                      .num_experts_per_tok = 8,
                      .num_local_experts = 256,
                      .moe_intermediate_size = 768};
    cpu_device->reserve(limits);
    cuda_device->reserve(limits);
  }
  std::unique_ptr<Device> cpu_device, cuda_device;
  Side cpu, gpu;
  DType dtype;
};

}  // namespace moerun::test
