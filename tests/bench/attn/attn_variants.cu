// Scratch: variants of the prefill attention kernel against the present one: errors, bits, chunks, times.
#define MOERUN_WAIT_DEADLINE
struct WaitReport {
  unsigned int taken, kind, block, thread, address, parity, marks[12];
};
extern "C" { __device__ WaitReport* wait_report; }
#include "tests/bench/attn/present.cu"
#include "tests/bench/attn/variants.cuh"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

using namespace moerun;
namespace {

WaitReport* report;


void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  std::printf("FAILED %s: %s\n", what, cudaGetErrorString(status));
  if (report && (report->taken || report->kind)) {
    std::printf("  deadline: kind %u (1 mbarrier, 2 watchdog) block %u thread %u smem base + %u parity %u marks", report->kind,
                report->block, report->thread, report->address - 0x400, report->parity);
    for (unsigned mark : report->marks) std::printf(" %u", mark);
    std::printf("\n");
  }
  std::fflush(stdout);
  std::exit(1);
}
#define CHECKED(x) check(x, #x)

__device__ uint32_t hash(uint32_t x) {
  x ^= x >> 16, x *= 0x7feb352dU, x ^= x >> 15, x *= 0x846ca68bU, x ^= x >> 16;
  return x;
}
template <class T>
__global__ void fill(T* p, int64_t n, uint32_t key) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x) {
    float sum = -6;  // about normal
    for (uint32_t k = 0; k < 12; ++k) sum += hash(static_cast<uint32_t>(i) * 12 + k + key * 0x9E3779B9U) * 0x1p-32f;
    p[i] = cuda::Element<T>::from_float(sum);
  }
}
/// Softmax attention of one row in float32 with float64 sums.
template <class T>
__global__ void reference(AttentionArgs args, const int32_t* cu, const int32_t* context_lens, const int32_t* table,
                          int32_t max_blocks, float* out) {
  const int32_t sequence = blockIdx.z, head = blockIdx.y, d = args.kv.head_dim;
  const int32_t token = cu[sequence] + blockIdx.x;
  if (token >= cu[sequence + 1]) return;
  const int32_t keys = context_lens[sequence] - (cu[sequence + 1] - 1 - token);
  const int32_t kv_head = head / (args.num_heads / args.kv.num_kv_heads);
  extern __shared__ float scores[];
  const T* q = static_cast<const T*>(args.q.data) + (int64_t{token} * args.num_heads + head) * d;
  __shared__ float shared_max;
  if (threadIdx.x == 0) shared_max = -INFINITY;
  const auto row = [&](int32_t key) {
    return cuda::cache_row(args.kv, table[int64_t{sequence} * max_blocks + key / args.kv.block_size],
                           key % args.kv.block_size, kv_head) * d;
  };
  for (int32_t key = threadIdx.x; key < keys; key += blockDim.x) {
    const T* k = static_cast<const T*>(args.kv.k.data) + row(key);
    float sum = 0;
    for (int i = 0; i < d; ++i) sum += cuda::Element<T>::to_float(q[i]) * cuda::Element<T>::to_float(k[i]);
    scores[key] = sum * args.scale;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    float most = -INFINITY;
    for (int32_t key = 0; key < keys; ++key) most = fmaxf(most, scores[key]);
    shared_max = most;
  }
  __syncthreads();
  if (threadIdx.x < d) {
    double total = 0, sum = 0;
    for (int32_t key = 0; key < keys; ++key) {
      const double w = exp(static_cast<double>(scores[key] - shared_max));
      total += w;
      sum += w * cuda::Element<T>::to_float(static_cast<const T*>(args.kv.v.data)[row(key) + threadIdx.x]);
    }
    out[(int64_t{token} * args.num_heads + head) * d + threadIdx.x] = static_cast<float>(sum / total);
  }
}

struct Shape {
  int32_t heads = 32, kv_heads = 4, head_dim = 128, block_size = 64;
};
/// The last `queries` of `context` positions of sequence `id`.
struct Chunk {
  int32_t id, queries, context;
};

using Launch = void (*)(DType, const DevicePlan&, const AttentionArgs&, int32_t, cudaStream_t);
struct Variant {
  const char* name;
  Launch launch;
};
using variants::launch_variant;
using variants::launch_variant, variants::kSnake, variants::kTurns, variants::kHalf, variants::kSkip;
const Variant kVariants[] = {
    {"present", present::launch_attention_prefill},
    {"tma", launch_variant<kSnake>},
    {"tma+turns", launch_variant<kSnake | kTurns>},
    {"tma+half", launch_variant<kSnake | kHalf>},
    {"tma+turns+half", launch_variant<kSnake | kTurns | kHalf>},
    {"tma+turns+half+skip", launch_variant<kSnake | kTurns | kHalf | kSkip>},
    {"tma+turns+half-snake", launch_variant<kTurns | kHalf>},
};

template <class X>
X* device_copy(const std::vector<X>& v) {
  X* p;
  CHECKED(cudaMalloc(&p, v.size() * sizeof(X) + 16));
  CHECKED(cudaMemcpy(p, v.data(), v.size() * sizeof(X), cudaMemcpyHostToDevice));
  return p;
}

/// Caches with sequences of the given lengths in shuffled blocks; a query for every position.
template <class T>
class Bed {
 public:
  Bed(const Shape& shape, const std::vector<int32_t>& lengths, int layers, uint32_t seed)
      : shape_(shape), lengths_(lengths) {
    int32_t blocks = 0, tokens = 0;
    for (int32_t length : lengths) blocks += blocks_of(length), first_.push_back(tokens), tokens += length;
    std::vector<int32_t> pool(blocks + 3);
    std::iota(pool.begin(), pool.end(), 0);
    std::shuffle(pool.begin(), pool.end(), std::mt19937(seed));
    auto next = pool.begin();
    for (int32_t length : lengths) table_.emplace_back(next, next + blocks_of(length)), next += blocks_of(length);
    rows_ = int64_t(pool.size()) * shape.kv_heads * shape.block_size;
    for (int i = 0; i < layers; ++i) {
      T *k = make(rows_ * shape.head_dim, seed + 10 * i), *v = make(rows_ * shape.head_dim, seed + 10 * i + 1);
      layers_.push_back({{k, cuda::Element<T>::kDType, rows_, shape.head_dim},
                         {v, cuda::Element<T>::kDType, rows_, shape.head_dim},
                         shape.kv_heads, shape.block_size, shape.head_dim});
      // Poison past the sequences' ends: NaN.
      for (size_t s = 0; s < lengths.size(); ++s)
        if (const int32_t used = lengths[s] % shape.block_size)
          for (int32_t h = 0; h < shape.kv_heads; ++h) {
            const int64_t row = (int64_t{table_[s].back()} * shape.kv_heads + h) * shape.block_size + used;
            const size_t bytes = size_t(shape.block_size - used) * shape.head_dim * 2;
            CHECKED(cudaMemset(k + row * shape.head_dim, 0xff, bytes));
            CHECKED(cudaMemset(v + row * shape.head_dim, 0xff, bytes));
          }
    }
    q_all_ = make(int64_t{tokens} * width(), seed + 5);
    CHECKED(cudaMalloc(&q_, int64_t{tokens} * width() * 2));
    CHECKED(cudaMalloc(&out_, int64_t{tokens} * width() * 2));
    tokens_ = tokens;
  }
  ~Bed() {
    for (KvLayer& layer : layers_) cudaFree(layer.k.data), cudaFree(layer.v.data);
    cudaFree(q_all_), cudaFree(q_), cudaFree(out_);
    clear();
  }

  void set(const std::vector<Chunk>& chunks) {
    clear();
    std::vector<int32_t> cu{0}, contexts, table;
    plan_ = {};
    for (const Chunk& c : chunks) plan_.max_blocks = std::max(plan_.max_blocks, blocks_of(c.context));
    flop_ = 0;
    for (const Chunk& c : chunks) {
      CHECKED(cudaMemcpy(q_ + cu.back() * width(), q_all_ + (first_[c.id] + c.context - c.queries) * width(),
                         size_t(c.queries) * width() * 2, cudaMemcpyDeviceToDevice));
      cu.push_back(cu.back() + c.queries);
      contexts.push_back(c.context);
      for (int32_t b = 0; b < plan_.max_blocks; ++b)
        table.push_back(b < blocks_of(c.context) ? table_[c.id][b] : -1);
      plan_.max_query_len = std::max(plan_.max_query_len, c.queries);
      plan_.max_context_len = std::max(plan_.max_context_len, c.context);
      for (int32_t i = 0; i < c.queries; ++i) flop_ += 4.0 * width() * (c.context - i);
    }
    plan_.num_tokens = cu.back();
    plan_.num_seqs = plan_.num_prefill_seqs = int32_t(chunks.size());
    plan_.cu_seqlens_q = {device_copy(cu), int64_t(cu.size())};
    plan_.context_lens = {device_copy(contexts), int64_t(contexts.size())};
    plan_.block_table = {device_copy(table), int64_t(table.size())};
  }
  void launch(const Variant& variant, int layer) {
    variant.launch(cuda::Element<T>::kDType, plan_, args(layer), sms_, stream_);
  }
  std::vector<T> run(const Variant& variant) {
    CHECKED(cudaMemset(out_, 0xff, size_t(plan_.num_tokens) * width() * 2));
    launch(variant, 0);
    CHECKED(cudaGetLastError());
    CHECKED(cudaStreamSynchronize(stream_));
    std::vector<T> host(size_t(plan_.num_tokens) * width());
    CHECKED(cudaMemcpy(host.data(), out_, host.size() * 2, cudaMemcpyDeviceToHost));
    return host;
  }
  std::vector<float> reference_run() {
    float* out;
    CHECKED(cudaMalloc(&out, size_t(plan_.num_tokens) * width() * 4));
    reference<T><<<dim3(plan_.max_query_len, shape_.heads, plan_.num_seqs), 128, plan_.max_context_len * 4>>>(
        args(0), plan_.cu_seqlens_q.data, plan_.context_lens.data, plan_.block_table.data, plan_.max_blocks, out);
    CHECKED(cudaGetLastError());
    CHECKED(cudaDeviceSynchronize());
    std::vector<float> host(size_t(plan_.num_tokens) * width());
    CHECKED(cudaMemcpy(host.data(), out, host.size() * 4, cudaMemcpyDeviceToHost));
    cudaFree(out);
    return host;
  }
  /// Median microseconds of a launch.
  double time(const Variant& variant) {
    cudaEvent_t begin, end;
    CHECKED(cudaEventCreate(&begin));
    CHECKED(cudaEventCreate(&end));
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    constexpr int kCopies = 8;
    CHECKED(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < kCopies; ++i) launch(variant, i % int(layers_.size()));
    CHECKED(cudaStreamEndCapture(stream_, &graph));
    CHECKED(cudaGraphInstantiate(&exec, graph, 0));
    std::vector<float> times;
    for (int round = 0; round < 9; ++round) {
      CHECKED(cudaEventRecord(begin, stream_));
      CHECKED(cudaGraphLaunch(exec, stream_));
      CHECKED(cudaEventRecord(end, stream_));
      CHECKED(cudaEventSynchronize(end));
      float ms;
      CHECKED(cudaEventElapsedTime(&ms, begin, end));
      if (round >= 2) times.push_back(ms * 1000 / kCopies);
    }
    cudaGraphExecDestroy(exec), cudaGraphDestroy(graph);
    cudaEventDestroy(begin), cudaEventDestroy(end);
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }
  double flop() const { return flop_; }
  int64_t width() const { return int64_t{shape_.heads} * shape_.head_dim; }
  static inline int32_t sms_ = 132;
  static inline cudaStream_t stream_ = nullptr;

 private:
  AttentionArgs args(int layer) const {
    return {.q = {q_, cuda::Element<T>::kDType, plan_.num_tokens, width()},
            .kv = layers_[layer],
            .out = {out_, cuda::Element<T>::kDType, plan_.num_tokens, width()},
            .num_heads = shape_.heads,
            .scale = 1 / std::sqrt(float(shape_.head_dim))};
  }
  T* make(int64_t n, uint32_t key) {
    T* p;
    CHECKED(cudaMalloc(&p, n * 2));
    fill<<<1024, 256>>>(p, n, key);
    CHECKED(cudaDeviceSynchronize());
    return p;
  }
  int32_t blocks_of(int32_t length) const { return (length + shape_.block_size - 1) / shape_.block_size; }
  void clear() {
    cudaFree(plan_.cu_seqlens_q.data), cudaFree(plan_.context_lens.data), cudaFree(plan_.block_table.data);
    plan_ = {};
  }
  Shape shape_;
  std::vector<int32_t> lengths_, first_;
  std::vector<std::vector<int32_t>> table_;
  std::vector<KvLayer> layers_;
  int64_t rows_ = 0, tokens_ = 0;
  T *q_all_ = nullptr, *q_ = nullptr, *out_ = nullptr;
  DevicePlan plan_;
  double flop_ = 0;
};

template <class T>
float as_float(T v);
template <>
float as_float(__nv_bfloat16 v) { return __bfloat162float(v); }
template <>
float as_float(__half v) { return __half2float(v); }

int failures = 0;

template <class T>
void compare(const char* what, const std::vector<T>& got, const std::vector<T>& expected) {
  size_t unequal = 0;
  double most = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::memcmp(&got[i], &expected[i], 2) != 0) ++unequal;
    const double d = std::fabs(as_float(got[i]) - as_float(expected[i]));
    if (!(d <= most)) most = d;
  }
  if (unequal) {
    ++failures;
    std::printf("    %s: UNEQUAL bits in %zu of %zu, largest difference %g\n", what, unequal, got.size(), most);
    std::fflush(stdout);
  }
}

template <class T>
double error_of(const std::vector<T>& got, const std::vector<float>& expected) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double d = as_float(got[i]) - expected[i];
    difference += d * d, norm += double{expected[i]} * expected[i];
  }
  return std::sqrt(difference / norm);
}

template <class T>
void correct(const Variant& variant, const Shape& shape, const char* dtype) {
  const std::vector<int32_t> lengths{1, 31, 33, 64, 65, 200, 700, 512, 513, 1300};
  Bed<T> bed(shape, lengths, 1, 77);
  std::vector<Chunk> all;
  for (int32_t i = 0; i < int32_t(lengths.size()); ++i) all.push_back({i, lengths[i], lengths[i]});
  bed.set(all);
  const std::vector<T> whole = bed.run(variant);
  const double error = error_of(whole, bed.reference_run());
  std::printf("  %-22s %s %2d/%d heads of %3d, blocks of %3d: error %.2e%s\n", variant.name, dtype, shape.heads,
              shape.kv_heads, shape.head_dim, shape.block_size, error, error < 6e-3 ? "" : "  WRONG");
  std::fflush(stdout);
  if (!(error < 6e-3)) ++failures;
  if (variant.launch != present::launch_attention_prefill) compare("against present", whole, bed.run(kVariants[0]));
  compare("again", bed.run(variant), whole);
  // In chunks, alone and together with another.
  size_t row = 0;
  for (const Chunk& chunk : all) {
    const std::vector<T> expected(whole.begin() + row * bed.width(), whole.begin() + (row + chunk.queries) * bed.width());
    row += chunk.queries;
    for (const int32_t size : {16, 100, 512}) {
      if (chunk.queries < size && size != 16) continue;
      if (size == 16 && chunk.queries > 600) continue;
      std::vector<T> parts;
      for (int32_t at = 0; at < chunk.queries; at += size) {
        const int32_t n = std::min(size, chunk.queries - at);
        std::vector<Chunk> step{{chunk.id, n, at + n}};
        const bool neighbour = at / size % 2;
        if (neighbour) step.insert(step.begin(), {6, 77, 600});
        bed.set(step);
        const std::vector<T> got = bed.run(variant);
        parts.insert(parts.end(), got.end() - n * bed.width(), got.end());
      }
      char what[64];
      std::snprintf(what, sizeof what, "%d tokens in chunks of %d", chunk.queries, size);
      compare(what, parts, expected);
    }
  }
}

void timed(const char* name, const std::vector<int32_t>& lengths, const std::vector<Chunk>& chunks) {
  Bed<__nv_bfloat16> bed({}, lengths, 2, 5);
  bed.set(chunks);
  const auto expected = bed.run(kVariants[0]);
  std::printf("%s\n", name);
  for (const Variant& variant : kVariants) {
    compare(variant.name, bed.run(variant), expected);
    const double us = bed.time(variant);
    std::printf("  %-22s %8.1f us %6.0f TFLOP/s\n", variant.name, us, bed.flop() / us / 1e6);
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) try {
  const bool checks = argc < 2 || std::strcmp(argv[1], "time") != 0, times = argc < 2 || std::strcmp(argv[1], "check") != 0;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  CHECKED(cudaSetDeviceFlags(cudaDeviceMapHost));
  CHECKED(cudaHostAlloc(&report, sizeof *report, cudaHostAllocMapped));
  std::memset(report, 0, sizeof *report);
  CHECKED(cudaMemcpyToSymbol(wait_report, &report, sizeof report));
  cudaDeviceProp properties;
  CHECKED(cudaGetDeviceProperties(&properties, 0));
  std::printf("%s, %d SMs\n", properties.name, properties.multiProcessorCount);
  cudaStream_t stream;
  CHECKED(cudaStreamCreate(&stream));
  Bed<__nv_bfloat16>::sms_ = Bed<__half>::sms_ = properties.multiProcessorCount;
  Bed<__nv_bfloat16>::stream_ = Bed<__half>::stream_ = stream;
  using S = variants::Shared<128>;
  std::printf("barriers at (from the block's shared base, dim 128): queries_full %zu queries_empty %zu keys_full %zu keys_empty %zu values_full %zu values_empty %zu\n",
              offsetof(S, queries_full), offsetof(S, queries_empty), offsetof(S, keys_full), offsetof(S, keys_empty),
              offsetof(S, values_full), offsetof(S, values_empty));
  if (checks)
    for (const Variant& variant : kVariants) {
      correct<__nv_bfloat16>(variant, {}, "bf16");
      if (&variant == &kVariants[0] || &variant == &kVariants[2] || &variant == &kVariants[4]) {
        correct<__half>(variant, {14, 2, 128, 32}, "fp16");
        correct<__nv_bfloat16>(variant, {4, 4, 64, 96}, "bf16");
        correct<__nv_bfloat16>(variant, {16, 1, 64, 256}, "bf16");
      }
    }
  std::printf("failures: %d\n", failures);
  if (times) {
    for (const auto& [seqs, length] : {std::pair{64, 128}, {32, 512}, {16, 1024}, {16, 2048}, {8, 2048}, {4, 4096}, {1, 8192}}) {
      std::vector<Chunk> chunks;
      for (int32_t i = 0; i < seqs; ++i) chunks.push_back({i, length, length});
      char name[64];
      std::snprintf(name, sizeof name, "%d x %d", seqs, length);
      timed(name, std::vector<int32_t>(seqs, length), chunks);
    }
    timed("2 x 896 at 128", {1024, 1024}, {{0, 896, 1024}, {1, 896, 1024}});
    timed("1024 + 768 at 0", {1024, 1024}, {{0, 1024, 1024}, {1, 768, 768}});
    timed("256 at 768, 1024, 512 at 0", {1024, 1024, 1024}, {{0, 256, 1024}, {1, 1024, 1024}, {2, 512, 512}});
    timed("ragged: 1 x 4096, 40 x 100", [] {
      std::vector<int32_t> l(41, 100);
      l[7] = 4096;
      return l;
    }(), [] {
      std::vector<Chunk> c;
      for (int32_t i = 0; i < 41; ++i) c.push_back(i == 7 ? Chunk{7, 4096, 4096} : Chunk{i, 100, 100});
      return c;
    }());
  }
  std::printf("failures: %d\n", failures);
  return failures ? 1 : 0;
} catch (const std::exception& error) {
  std::printf("error: %s\n", error.what());
  return 1;
}
