#include "device/cuda/cuda_device.h"

#include <algorithm>

#include "device/cuda/cuda_nvml.h"
#include "kernels/cuda/packed_weight.h"

namespace moerun {

namespace {

// What the driver, the libraries and recorded graphs take beside the arena.
constexpr size_t kReserveBytes = size_t{640} << 20;
constexpr size_t kMaxGraphs = 64;

std::string uuid_text(const cudaUUID_t& uuid) {
  std::string text = "GPU-";
  for (int i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", static_cast<unsigned char>(uuid.bytes[i]));
  }
  return text;
}

Gpu gpu_of(const cudaDeviceProp& properties) {
  return {.name = properties.name,
          .uuid = uuid_text(properties.uuid),
          .bytes = static_cast<int64_t>(properties.totalGlobalMem),
          .major = properties.major,
          .minor = properties.minor};
}

/// Makes this GPU the one of the calling thread; what was asked of CUDA before made no context. Nothing
/// touched another GPU before, so none carries a context of ours.
cudaDeviceProp choose(int index) {
  CUDA_CHECK(cudaSetDevice(index));
  cudaDeviceProp properties{};
  CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
  if (const Gpu gpu = gpu_of(properties); !gpu.usable()) throw BadInput(why_not(index, gpu));
  return properties;
}

/// gpu_memory_utilization is of the whole GPU, and counts this process's context.
size_t arena_bytes(const CudaOptions& options) {
  size_t free = 0, total = 0;
  CUDA_CHECK(cudaMemGetInfo(&free, &total));
  const auto wanted = static_cast<size_t>(static_cast<double>(total) * options.gpu_memory_utilization);
  const size_t taken = total - free;
  // Others' memory is not ours to count, but it cannot be used either.
  const size_t limit = std::min(wanted > kReserveBytes ? wanted - kReserveBytes : 0,
                                free > kReserveBytes ? free - kReserveBytes : 0);
  if (limit < (size_t{256} << 20))
    throw Error(
        fmt::format("GPU memory: {:.1f} of {:.1f} GiB are taken, and memory.gpu_memory_utilization {} leaves "
                    "less than 256 MiB "
                    "to work with; is another process on this GPU?",
                    static_cast<double>(taken) / (1 << 30), static_cast<double>(total) / (1 << 30),
                    options.gpu_memory_utilization));
  return limit;
}

}  // namespace

GpuSight look_at_cuda() {
  GpuSight out;
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorInsufficientDriver)  // also where there is none at all
    out.why_none =
        "there is no NVIDIA driver here, or it is too old for the CUDA that this program was built with";
  else if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0))
    out.why_none = "CUDA shows this process no GPU";
  else if (status != cudaSuccess)
    out.why_none = fmt::format("{} ({})", cudaGetErrorString(status), cudaGetErrorName(status));
  for (int index = 0; status == cudaSuccess && index < count; ++index) {
    cudaDeviceProp properties{};
    if (const cudaError_t failed = cudaGetDeviceProperties(&properties, index); failed != cudaSuccess) {
      out.why_none =
          fmt::format("GPU {}: {} ({})", index, cudaGetErrorString(failed), cudaGetErrorName(failed));
      break;
    }
    out.gpus.push_back(gpu_of(properties));
    if (!out.gpus.back().usable()) out.why_none = why_not(index, out.gpus.back());
  }
  return out;
}

std::unique_ptr<Device> make_cuda_device(const CudaOptions& options) {
  return std::make_unique<CudaDevice>(options);
}

namespace {

CudaDevice& cuda_device(Device& device) {
  auto* const cuda = dynamic_cast<CudaDevice*>(&device);
  if (!cuda) throw Error("this exchange needs the CUDA device");
  return *cuda;
}

}  // namespace

CudaMemory cuda_memory(Device& device) {
  const Arena& arena = cuda_device(device).arena();
  return {arena.base(), arena.size()};
}

void* cuda_stream(Device& device) { return cuda_device(device).stream(); }

CudaDevice::CudaDevice(const CudaOptions& options)
    : options_(options),
      properties_(choose(options.index)),
      name_(properties_.name),
      uuid_(uuid_text(properties_.uuid)),
      wait_(stream_),
      attention_(stream_, properties_.multiProcessorCount),
      graphs_(stream_, kMaxGraphs) {
  if (options.dtype == DType::float32)
    throw Error("the CUDA device computes in float16 or bfloat16: model.dtype float32 is for device: cpu");
  arena_ = std::make_unique<Arena>(arena_bytes(options));
  weights_ = std::make_unique<WeightUpload>(*arena_, stream_);
}

CudaDevice::~CudaDevice() { cudaStreamSynchronize(stream_); }  // what is enqueued still uses the members

void* CudaDevice::allocate(size_t bytes, const char* what) { return arena_->allocate(bytes, what); }

Tensor CudaDevice::host_tensor(int64_t rows, int64_t cols, DType dtype, const char* what) {
  const size_t bytes = static_cast<size_t>(rows * cols) * size_of(dtype);
  try {
    host_tensors_.emplace_back(bytes);
  } catch (const Error& error) {
    throw Error(
        fmt::format("host memory: {} needs {:.2f} GiB of pinned memory for each rank on this node; give the "
                    "job more memory, or start fewer ranks a node ({})",
                    what, static_cast<double>(bytes) / (1 << 30), error.what()));
  }
  host_uses_.add(fmt::format("{} (host memory)", what), bytes);
  return {host_tensors_.back().data(), dtype, rows, cols};
}

namespace {

bool is_packed(const Matrix& matrix) {
  return matrix.kind == Matrix::Kind::expert_gate_up || matrix.kind == Matrix::Kind::expert_down;
}

}  // namespace

size_t CudaDevice::matrix_bytes(const Matrix& matrix) const {
  if (matrix.is_fp8())
    return static_cast<size_t>(Fp8PackedWeight{matrix.out_features, matrix.in_features}.bytes());
  const int64_t elements = is_packed(matrix)
                               ? PackedWeight{matrix.out_features, matrix.in_features}.elements()
                               : matrix.out_features * matrix.in_features;
  return static_cast<size_t>(elements) * size_of(dtype());
}

Matrix CudaDevice::matrix(const MatrixShape& shape, const char* what) {
  Matrix matrix{shape.kind, nullptr, shape.count, shape.out_features, shape.in_features, shape.dtype};
  if (matrix.is_fp8()) {
    fp8_weights_ = true;
    if (workspace_) reserve_fp8();
  } else if (shape.dtype != dtype()) {
    throw Error(fmt::format("the CUDA device has no products of {} weights with {} activations",
                            name_of(shape.dtype), name_of(dtype())));
  }
  const size_t bytes = static_cast<size_t>(shape.count) * matrix_bytes(matrix);
  matrix.data = allocate(bytes, what);
  CUDA_CHECK(cudaMemsetAsync(matrix.data, 0, bytes, stream_));  // a packed matrix's padding must be zero
  return matrix;
}

void CudaDevice::load(const Matrix& matrix, int64_t index, int64_t row0, const HostMatrix& part) {
  char* const dst = static_cast<char*>(matrix.data) + static_cast<size_t>(index) * matrix_bytes(matrix);
  if (matrix.is_fp8() != (part.dtype == DType::e4m3))  // a caller's mistake, not a user's
    throw Error("weights in e4m3 belong in a matrix of e4m3, and no others");
  const bool interleave = matrix.kind == Matrix::Kind::expert_gate_up;
  if (matrix.is_fp8())
    return weights_->fp8_rows({.dst = reinterpret_cast<uint8_t*>(dst),
                               .dst_rows = matrix.out_features,
                               .row0 = row0,
                               .interleave = interleave},
                              part);
  weights_->rows({.dst = dst,
                  .dtype = dtype(),
                  .row0 = row0,
                  .interleave = interleave ? static_cast<int32_t>(PackedWeight::kGateUpUnit) : 0,
                  .half = matrix.out_features / 2,
                  .packed_rows = is_packed(matrix) ? matrix.out_features : 0},
                 part);
}

void CudaDevice::load(const Tensor& tensor, int64_t row0, const HostMatrix& part) {
  weights_->rows({.dst = tensor.data, .dtype = tensor.dtype, .row0 = row0}, part);
}

std::vector<MemoryUse> CudaDevice::memory_table() const {
  std::vector<MemoryUse> table = arena_->uses();
  table.push_back({"not used", arena_->free_bytes()});
  table.insert(table.end(), host_uses_.table().begin(), host_uses_.table().end());
  return table;
}

std::vector<DeviceProcess> CudaDevice::processes() const { return nvml_compute_processes(uuid_); }

void CudaDevice::copy_to_device(void* device, const void* host, size_t bytes) {
  CUDA_CHECK(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_));
}

void CudaDevice::copy_to_host(void* host, const void* device, size_t bytes) {
  CUDA_CHECK(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_));
  synchronize();
}

void CudaDevice::begin_copy_to_host(const HostCopy& copy) {
  CUDA_CHECK(cudaMemcpy2DAsync(copy.host, copy.row_bytes, copy.device, copy.stride, copy.row_bytes,
                               static_cast<size_t>(copy.rows), cudaMemcpyDeviceToHost, stream_));
}

void CudaDevice::synchronize() { wait_.wait(); }

void CudaDevice::forget_recorded() {
  cudaStreamSynchronize(stream_);  // a fault has been told where it was met; this may be its way out
  graphs_.clear();
}

void CudaDevice::run(const StepShape& shape, const std::function<void()>& body) {
  if (options_.graphs)
    graphs_.run(shape, body);
  else
    body();
}

}  // namespace moerun
