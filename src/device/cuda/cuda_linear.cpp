#include "device/cuda/cuda_linear.h"

#include <algorithm>
#include <array>
#include <bit>

#include "device/cuda/cuda_check.h"
#include "kernels/cuda/ordered_gemm.h"

namespace moerun {

namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;  // what cuBLAS recommends for Hopper
constexpr int kCandidates = 8;
constexpr int64_t kCheckedRows = 32;  // at each end
constexpr uint32_t kAlignment = 16;

void check(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw Error(fmt::format("cuBLASLt: {} from {}", cublasLtGetStatusString(status), call));
}

cudaDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return CUDA_R_32F;
    case DType::float16:
      return CUDA_R_16F;
    case DType::bfloat16:
      return CUDA_R_16BF;
    case DType::e4m3:
      break;
  }
  throw Error("a dtype that cuBLASLt does not know");
}

/// 1, 2, 3, 4, 6, 8, 12, 16, 24, …: the next power of two, or three quarters of it.
int64_t row_class(int64_t rows) {
  const auto power = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(rows)));
  return power >= 4 && rows <= power / 4 * 3 ? power / 4 * 3 : power;
}

bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % kAlignment == 0; }

}  // namespace

/// A product in cuBLASLt's words. It is column-major: outᵀ [out_features, rows] = Wᵀᵀ·xᵀ, so W comes first,
/// transposed.
struct LinearProducts::Description {
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t w, x, out;

  Description(DType dtype, const Product& p) {
    check(cublasLtMatmulDescInit(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescInit");
    const cublasOperation_t transposed = CUBLAS_OP_T;
    set(CUBLASLT_MATMUL_DESC_TRANSA, transposed);
    if (p.bias) {
      const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
      set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
      const cudaDataType_t bias_type = type_of(dtype);
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, bias_type);
    }
    const int64_t part = p.in_features / p.parts;
    layout(w, dtype, part, p.out_features, p.in_features, p.parts, part);
    layout(x, dtype, part, p.rows, p.in_features, p.parts, part);
    layout(out, p.out_dtype, p.out_features, p.rows, p.out_features, p.parts, p.rows * p.out_features);
  }

 private:
  template <typename T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    check(cublasLtMatmulDescSetAttribute(&operation, attribute, &value, sizeof value),
          "cublasLtMatmulDescSetAttribute");
  }
  static void layout(cublasLtMatrixLayoutOpaque_t& layout, DType dtype, int64_t rows, int64_t cols,
                     int64_t ld, int32_t count, int64_t stride) {
    check(cublasLtMatrixLayoutInit(&layout, type_of(dtype), static_cast<uint64_t>(rows),
                                   static_cast<uint64_t>(cols), ld),
          "cublasLtMatrixLayoutInit");
    check(cublasLtMatrixLayoutSetAttribute(&layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count),
          "cublasLtMatrixLayoutSetAttribute");
    check(cublasLtMatrixLayoutSetAttribute(&layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                           sizeof stride),
          "cublasLtMatrixLayoutSetAttribute");
  }
};

LinearProducts::LinearProducts(Arena& arena, cudaStream_t stream, DType dtype)
    : stream_(stream),
      dtype_(dtype),
      workspace_(arena.allocate(kWorkspaceBytes, "workspace")),
      differing_(static_cast<uint32_t*>(arena.allocate(sizeof(uint32_t), "workspace"))) {
  check(cublasLtCreate(&handle_), "cublasLtCreate");
}

LinearProducts::~LinearProducts() { cublasLtDestroy(handle_); }

void LinearProducts::run(const Product& product) {
  if (product.rows == 0) return;
  const Shape shape{row_class(product.rows), product.out_features, product.in_features,
                    product.parts,           product.out_dtype,    product.bias != nullptr};
  auto found = choices_.find(shape);
  if (found == choices_.end()) found = choices_.emplace(shape, choose(product, shape)).first;
  // The bits are the same either way.
  if (!found->second.library || !launch(product, found->second.algorithm)) launch_ordered(product, false);
}

LinearProducts::Counts LinearProducts::counts() const {
  Counts counts;
  for (const auto& [shape, choice] : choices_) {
    ++counts.classes;
    counts.by_library += choice.library;
  }
  return counts;
}

LinearProducts::Choice LinearProducts::choose(const Product& product, const Shape& shape) {
  cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
  CUDA_CHECK(cudaStreamIsCapturing(stream_, &capturing));
  if (capturing != cudaStreamCaptureStatusNone)
    throw Error("a matrix product came for the first time while its step was recorded as a graph");
  const int64_t part_bytes = product.in_features / product.parts * static_cast<int64_t>(size_of(dtype_));
  if (!aligned(product.x) || !aligned(product.w) || !aligned(product.out) || part_bytes % kAlignment != 0)
    return {};

  // The heuristic sees the whole class, so that the choice does not depend on which rows came first.
  Product typical = product;
  typical.rows = shape.row_class;
  Description description(dtype_, typical);
  cublasLtMatmulPreferenceOpaque_t preference;
  check(cublasLtMatmulPreferenceInit(&preference), "cublasLtMatmulPreferenceInit");
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    check(cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &value, sizeof value),
          "cublasLtMatmulPreferenceSetAttribute");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspaceBytes});
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_NONE});
  for (const auto which :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
    prefer(which, kAlignment);
  std::array<cublasLtMatmulHeuristicResult_t, kCandidates> candidates{};
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      handle_, &description.operation, &description.w, &description.x, &description.out, &description.out,
      &preference, kCandidates, candidates.data(), &count);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) return {};
  check(status, "cublasLtMatmulAlgoGetHeuristic");
  for (int i = 0; i < count; ++i) {
    const cublasLtMatmulAlgo_t& algorithm = candidates[static_cast<size_t>(i)].algo;
    int32_t split = 0;
    check(cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &split,
                                               sizeof split, nullptr),
          "cublasLtMatmulAlgoConfigGetAttribute");
    if (split <= 1 && launch(product, algorithm) && right_bits(product)) return {true, algorithm};
  }
  return {};
}

bool LinearProducts::launch(const Product& product, const cublasLtMatmulAlgo_t& algorithm) {
  Description description(dtype_, product);
  const float one = 1, zero = 0;
  const cublasStatus_t status =
      cublasLtMatmul(handle_, &description.operation, &one, product.w, &description.w, product.x,
                     &description.x, &zero, product.out, &description.out, product.out, &description.out,
                     &algorithm, workspace_, kWorkspaceBytes, stream_);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) return false;
  check(status, "cublasLtMatmul");
  return true;
}

void LinearProducts::launch_ordered(const Product& p, bool compare) {
  const int64_t part = p.in_features / p.parts;
  const auto at = [](const void* data, int64_t elements, DType dtype) {
    return static_cast<char*>(const_cast<void*>(data)) + elements * static_cast<int64_t>(size_of(dtype));
  };
  for (int32_t i = 0; i < p.parts; ++i) {
    const auto rows = [&](int64_t begin, int64_t count) {
      launch_ordered_gemm({.dtype = dtype_,
                           .out_dtype = p.out_dtype,
                           .x = at(p.x, begin * p.in_features + i * part, dtype_),
                           .w = at(p.w, i * part, dtype_),
                           .bias = p.bias,
                           .out = at(p.out, (i * p.rows + begin) * p.out_features, p.out_dtype),
                           .differing = compare ? differing_ : nullptr,
                           .ldx = p.in_features,
                           .ldw = p.in_features,
                           .rows = count,
                           .out_features = p.out_features,
                           .in_features = part},
                          stream_);
    };
    if (!compare) {
      rows(0, p.rows);
      continue;
    }
    rows(0, std::min(p.rows, kCheckedRows));
    if (p.rows > kCheckedRows)
      rows(std::max(kCheckedRows, p.rows - kCheckedRows), std::min(p.rows - kCheckedRows, kCheckedRows));
  }
}

bool LinearProducts::right_bits(const Product& product) {
  CUDA_CHECK(cudaMemsetAsync(differing_, 0, sizeof *differing_, stream_));
  launch_ordered(product, true);
  uint32_t differing = 0;
  CUDA_CHECK(cudaMemcpyAsync(&differing, differing_, sizeof differing, cudaMemcpyDeviceToHost, stream_));
  CUDA_CHECK(cudaStreamSynchronize(stream_));
  return differing == 0;
}

}  // namespace moerun
