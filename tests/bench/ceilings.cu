// Measures what this GPU can do at best: prints one JSON line {"device", "read_gb_s", "read_gib",
// "matmul_tflop_s"}. Reading: every byte of a buffer of 8 GiB once, in 16-byte loads. Matrix product: bf16
// 8192³ through cuBLASLt, float32 accumulation, random data (zeros draw less power and flatter the clock).
// Each is the median of several runs timed by events.
//
// Usage: ceilings
#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr size_t kReadBytes = size_t{8} << 30;
constexpr int64_t kSide = 8192;
constexpr int kRuns = 15;

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}
void check(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw std::runtime_error(std::string(what) + ": " + cublasLtGetStatusString(status));
}

/// 16-byte loads, eight in flight a thread; the sum is written in a case that does not come, so that the
/// loads stay.
__global__ void read_kernel(const uint4* in, int64_t count, uint32_t* never) {
  uint32_t sum = 0;
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  for (; i + 7 * stride < count; i += 8 * stride) {
    uint4 v[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) v[j] = __ldcs(in + i + j * stride);
#pragma unroll
    for (int j = 0; j < 8; ++j) sum += v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  for (; i < count; i += stride) sum += in[i].x;
  if (sum == 0x12345678u) *never = sum;
}

/// Uniform in [-1, 1), from a hash of the index.
__global__ void fill_kernel(__nv_bfloat16* out, int64_t count, uint32_t seed) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < count; i += stride) {
    uint32_t h = static_cast<uint32_t>(i) * 2654435761u ^ seed;
    h = (h ^ (h >> 16)) * 0x7feb352du;
    h = (h ^ (h >> 15)) * 0x846ca68bu;
    h ^= h >> 16;
    out[i] = __float2bfloat16(static_cast<float>(h) * (2.0f / 4294967296.0f) - 1.0f);
  }
}

template <class V>
struct DeviceArray {
  V* data = nullptr;
  explicit DeviceArray(size_t bytes) { check(cudaMalloc(&data, bytes), "cudaMalloc"); }
  ~DeviceArray() { cudaFree(data); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
};

/// Median seconds of one run.
double seconds(const std::function<void()>& body) {
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin), "cudaEventCreate");
  check(cudaEventCreate(&end), "cudaEventCreate");
  std::vector<float> times;
  for (int run = 0; run < kRuns + 3; ++run) {  // the first ones warm up
    check(cudaEventRecord(begin), "cudaEventRecord");
    body();
    check(cudaEventRecord(end), "cudaEventRecord");
    check(cudaEventSynchronize(end), "the measured kernel");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
    if (run >= 3) times.push_back(ms);
  }
  check(cudaEventDestroy(begin), "cudaEventDestroy");
  check(cudaEventDestroy(end), "cudaEventDestroy");
  std::sort(times.begin(), times.end());
  return times[times.size() / 2] * 1e-3;
}

double read_bytes_a_second(int num_sms) {
  const DeviceArray<uint4> in(kReadBytes);
  const DeviceArray<uint32_t> never(sizeof(uint32_t));
  check(cudaMemset(in.data, 1, kReadBytes), "cudaMemset");
  // Which grid reads fastest differs between chips: the best one is the ceiling.
  double best = 0;
  for (const int blocks_a_sm : {4, 8, 16, 32}) {
    const double time = seconds([&] {
      read_kernel<<<num_sms * blocks_a_sm, 256>>>(in.data, kReadBytes / sizeof(uint4), never.data);
    });
    check(cudaGetLastError(), "read_kernel");
    best = std::max(best, static_cast<double>(kReadBytes) / time);
  }
  return best;
}

double matmul_flop_a_second() {
  constexpr size_t kBytes = kSide * kSide * sizeof(__nv_bfloat16), kWorkspace = size_t{64} << 20;
  const DeviceArray<__nv_bfloat16> a(kBytes), b(kBytes), c(kBytes);
  const DeviceArray<char> workspace(kWorkspace);
  fill_kernel<<<1024, 256>>>(a.data, kSide * kSide, 1);
  fill_kernel<<<1024, 256>>>(b.data, kSide * kSide, 2);
  check(cudaGetLastError(), "fill_kernel");

  cublasLtHandle_t handle;
  cublasLtMatmulDesc_t operation;
  cublasLtMatrixLayout_t layout;
  cublasLtMatmulPreference_t preference;
  check(cublasLtCreate(&handle), "cublasLtCreate");
  check(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
  const cublasOperation_t transposed = CUBLAS_OP_T;  // x·Wᵀ, both row-major: how the model's products lie
  check(
      cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed),
      "cublasLtMatmulDescSetAttribute");
  check(cublasLtMatrixLayoutCreate(&layout, CUDA_R_16BF, kSide, kSide, kSide), "cublasLtMatrixLayoutCreate");
  check(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
  check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &kWorkspace, sizeof kWorkspace),
        "cublasLtMatmulPreferenceSetAttribute");
  std::array<cublasLtMatmulHeuristicResult_t, 8> found{};
  int count = 0;
  check(cublasLtMatmulAlgoGetHeuristic(handle, operation, layout, layout, layout, layout, preference,
                                       static_cast<int>(found.size()), found.data(), &count),
        "cublasLtMatmulAlgoGetHeuristic");
  const float one = 1, zero = 0;
  double best = 0;
  for (int i = 0; i < count; ++i) {
    const double time = seconds([&] {
      check(cublasLtMatmul(handle, operation, &one, a.data, layout, b.data, layout, &zero, c.data, layout,
                           c.data, layout, &found[i].algo, workspace.data, kWorkspace, nullptr),
            "cublasLtMatmul");
    });
    best = std::max(best, 2.0 * kSide * kSide * kSide / time);
  }
  cublasLtMatmulPreferenceDestroy(preference);
  cublasLtMatrixLayoutDestroy(layout);
  cublasLtMatmulDescDestroy(operation);
  cublasLtDestroy(handle);
  return best;
}

}  // namespace

int main() try {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  const double read = read_bytes_a_second(properties.multiProcessorCount);
  const double product = matmul_flop_a_second();
  std::printf("{\"device\": \"%s\", \"read_gib\": %zu, \"read_gb_s\": %.1f, \"matmul_tflop_s\": %.1f}\n",
              properties.name, kReadBytes >> 30, read * 1e-9, product * 1e-12);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "ceilings: %s\n", error.what());
  return 1;
}
