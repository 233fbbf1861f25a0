// Checks the MoE kernels against plain references and times them on this GPU.
//   moe_bench [check] [bench] [all-tiles]     (none: check and bench)
// The timed layer is permutation + both products + combine, replayed as a CUDA graph.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/grouped_gemm.h"
#include "kernels/cuda/moe_combine.h"
#include "kernels/cuda/moe_permute.h"
#include "kernels/cuda/router.h"
#include "tests/bench/moe_reference.h"

using namespace moerun;
using namespace moerun::bench;

namespace {

int failures = 0;

void expect(bool ok, const char* what, double figure) {
  if (!ok) {
    ++failures;
    std::printf("  FAILED %s: %g\n", what, figure);
  }
}

template <class V>
struct DeviceArray {
  V* data = nullptr;
  size_t size = 0;
  explicit DeviceArray(size_t n) : size(n) {
    CUDA_CHECK(cudaMalloc(&data, std::max<size_t>(n, 1) * sizeof(V)));
  }
  explicit DeviceArray(const std::vector<V>& host) : DeviceArray(host.size()) {
    CUDA_CHECK(cudaMemcpy(data, host.data(), size * sizeof(V), cudaMemcpyHostToDevice));
  }
  DeviceArray(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data); }
  std::vector<V> host() const {
    std::vector<V> out(size);
    CUDA_CHECK(cudaMemcpy(out.data(), data, size * sizeof(V), cudaMemcpyDeviceToHost));
    return out;
  }
  void poison() { CUDA_CHECK(cudaMemset(data, 0xff, size * sizeof(V))); }  // NaN
};

// ---------------------------------------------------------------- kernels of the harness

template <class T>
__global__ void fill_kernel(T* out, int64_t count, HashedValues values) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < count;
       i += int64_t(gridDim.x) * blockDim.x) {
    out[i] = cuda::Element<T>::from_float(values(i));
  }
}

/// Element (row, col) of expert e is values((e·rows + row)·cols + col); gate rows are [0, rows/2), up rows
/// the rest, of a gate/up matrix.
template <class T>
__global__ void fill_packed_kernel(T* out, int64_t experts, PackedWeight packed, bool gate_up,
                                   HashedValues values) {
  const int64_t each = packed.rows * packed.cols;
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < experts * each;
       i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t expert = i / each, row = i % each / packed.cols, col = i % packed.cols,
                  half = packed.rows / 2;
    const int64_t placed = gate_up ? PackedWeight::gate_up_row(row % half, row >= half) : row;
    out[expert * packed.elements() + packed.offset(placed, col)] = cuda::Element<T>::from_float(values(i));
  }
}

__global__ void count_differences_kernel(const uint32_t* a, const uint32_t* b, int64_t count,
                                         unsigned long long* differences) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < count;
       i += int64_t(gridDim.x) * blockDim.x) {
    if (a[i] != b[i]) atomicAdd(differences, 1ull);
  }
}

__global__ void read_kernel(const uint4* in, int64_t count, uint32_t* out) {
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
  if (sum == 0x12345678) *out = sum;
}

// ---------------------------------------------------------------- the layer under test

struct Shape {
  int n = 0, hidden = 0, intermediate = 0, num_experts = 0, k = 0;
  int num_local = 0;  // experts with id % stride == 0 are local, in reversed slots
  int local_stride = 1;
};

std::vector<int32_t> local_slots(Shape& s) {
  std::vector<int32_t> slots(s.num_experts, -1);
  s.num_local = cuda::ceil_div(s.num_experts, s.local_stride);
  for (int e = 0, next = s.num_local; e < s.num_experts; e += s.local_stride) slots[e] = --next;
  return slots;
}

template <class T>
struct Layer {
  Shape s;
  HashedValues x_values, gate_values, w13_values, w2_values;
  PackedWeight w13_packed, w2_packed;
  std::vector<int32_t> slots;
  DeviceArray<T> x, gate, w13, w2, h, y, out;
  DeviceArray<int32_t> slot, ids;
  DeviceArray<float> weights;
  DeviceArray<uint8_t> workspace;
  DeviceArray<unsigned long long> expert_tokens;
  MoePlan plan;
  int sms = 0;

  Layer(Shape shape, uint64_t seed)
      : s(shape),
        x_values{seed, 2.0f},
        gate_values{seed + (1ull << 40), 0.125f},
        w13_values{seed + (2ull << 40), 0.0625f},
        w2_values{seed + (3ull << 40), 0.0625f},
        w13_packed{2 * s.intermediate, s.hidden},
        w2_packed{s.hidden, s.intermediate},
        slots(local_slots(s)),
        x(size_t(s.n) * s.hidden),
        gate(size_t(s.num_experts) * s.hidden),
        w13(size_t(s.num_local) * w13_packed.elements()),
        w2(size_t(s.num_local) * w2_packed.elements()),
        h(size_t(s.n) * s.k * s.intermediate),
        y(size_t(s.n) * s.k * s.hidden),
        out(size_t(s.n) * s.hidden),
        slot(slots),
        ids(size_t(s.n) * s.k),
        weights(size_t(s.n) * s.k),
        workspace(moe_plan_bytes(s.n, s.k, s.num_experts)),
        expert_tokens(s.num_experts),
        plan(moe_plan_in(workspace.data, s.n, s.k, s.num_experts)) {
    CUDA_CHECK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
    CUDA_CHECK(cudaMemset(w13.data, 0, w13.size * sizeof(T)));
    CUDA_CHECK(cudaMemset(w2.data, 0, w2.size * sizeof(T)));
    CUDA_CHECK(cudaMemset(expert_tokens.data, 0, expert_tokens.size * 8));
    fill_kernel<<<1024, 256>>>(x.data, int64_t(x.size), x_values);
    fill_kernel<<<1024, 256>>>(gate.data, int64_t(gate.size), gate_values);
    fill_packed_kernel<<<4096, 256>>>(w13.data, s.num_local, w13_packed, true, w13_values);
    fill_packed_kernel<<<4096, 256>>>(w2.data, s.num_local, w2_packed, false, w2_values);
    CUDA_CHECK(cudaGetLastError());
    CUDA_CHECK(cudaDeviceSynchronize());
  }

  void set_routing(const std::vector<int32_t>& host_ids, const std::vector<float>& host_weights) {
    CUDA_CHECK(cudaMemcpy(ids.data, host_ids.data(), host_ids.size() * 4, cudaMemcpyHostToDevice));
    CUDA_CHECK(
        cudaMemcpy(weights.data, host_weights.data(), host_weights.size() * 4, cudaMemcpyHostToDevice));
  }
  void poison() {
    h.poison();
    y.poison();
    out.poison();
    workspace.poison();
  }
  void router(int n, cudaStream_t stream) {
    launch_moe_router({.dtype = cuda::Element<T>::kDType,
                       .x = x.data,
                       .gate = gate.data,
                       .num_tokens = n,
                       .hidden = s.hidden,
                       .num_experts = s.num_experts,
                       .k = s.k,
                       .norm_topk_prob = true,
                       .topk_ids = ids.data,
                       .topk_weights = weights.data},
                      stream);
  }
  void permute(int n, int tile_rows, cudaStream_t stream) {
    launch_moe_permute({.topk_ids = ids.data,
                        .topk_weights = weights.data,
                        .local_slot = slot.data,
                        .num_tokens = n,
                        .k = s.k,
                        .num_experts = s.num_experts,
                        .tile_rows = tile_rows,
                        .plan = plan,
                        .expert_tokens = expert_tokens.data},
                       stream);
  }
  void gemm(int tile_rows, cudaStream_t stream) {
    launch_grouped_gemm({.dtype = cuda::Element<T>::kDType,
                         .x = x.data,
                         .gate_up = w13.data,
                         .down = w2.data,
                         .h = h.data,
                         .y = y.data,
                         .plan = plan,
                         .k = s.k,
                         .hidden = s.hidden,
                         .intermediate = s.intermediate,
                         .tile_rows = tile_rows,
                         .num_sms = sms},
                        stream);
  }
  void combine(int n, cudaStream_t stream, const int32_t* partial_offsets = nullptr, T* to = nullptr) {
    launch_moe_combine({.dtype = cuda::Element<T>::kDType,
                        .y = y.data,
                        .topk_ids = ids.data,
                        .local_slot = slot.data,
                        .partial_offsets = partial_offsets,
                        .out = to ? to : out.data,
                        .num_tokens = n,
                        .k = s.k,
                        .hidden = s.hidden},
                       stream);
  }
};

template <class T>
std::vector<float> hashed(const HashedValues& values, size_t begin, size_t count) {
  std::vector<float> out(count);
  for (size_t i = 0; i < count; ++i) out[i] = static_cast<float>(T(values(begin + i)));
  return out;
}

template <class T>
int64_t differences(const DeviceArray<T>& a, const DeviceArray<T>& b, size_t count) {
  DeviceArray<unsigned long long> found(std::vector<unsigned long long>{0});
  count_differences_kernel<<<1024, 256>>>(reinterpret_cast<const uint32_t*>(a.data),
                                          reinterpret_cast<const uint32_t*>(b.data),
                                          int64_t(count * sizeof(T) / 4), found.data);
  return int64_t(found.host()[0]);
}

// ---------------------------------------------------------------- checks

/// Every third token hits the same expert when skewed.
std::vector<int32_t> random_ids(const Shape& s, int kind, std::mt19937_64& random) {
  std::vector<int32_t> ids;
  std::vector<double> weight(s.num_experts, 1.0);
  if (kind == 1) {
    for (int e = 0; e < s.num_experts; ++e) weight[e] = 1.0 / (1.0 + e);  // power law, exponent 1
    std::shuffle(weight.begin(), weight.end(), random);
  }
  std::uniform_real_distribution<double> uniform(1e-12, 1.0);
  std::vector<int32_t> balanced(s.num_experts);
  std::iota(balanced.begin(), balanced.end(), 0);
  for (int t = 0; t < s.n; ++t) {
    if (kind == 2) {  // exactly balanced: whole shuffled decks of experts
      for (int i = 0; i < s.k; ++i) {
        const int at = (t * s.k + i) % s.num_experts;
        if (at == 0) std::shuffle(balanced.begin(), balanced.end(), random);
        ids.push_back(balanced[at]);
      }
      continue;
    }
    if (kind == 3) {  // all on the first k
      for (int i = 0; i < s.k; ++i) ids.push_back((i + t) % s.k);
      continue;
    }
    std::vector<std::pair<double, int>> keys;
    for (int e = 0; e < s.num_experts; ++e) keys.push_back({std::log(uniform(random)) / weight[e], e});
    std::partial_sort(keys.begin(), keys.begin() + s.k, keys.end(), std::greater<>());
    for (int i = 0; i < s.k; ++i) ids.push_back(keys[i].second);
  }
  return ids;
}

template <class T>
void check_router(Layer<T>& layer, const char* name) {
  const Shape& s = layer.s;
  layer.ids.poison();
  layer.weights.poison();
  layer.router(s.n, 0);
  const std::vector<int32_t> ids = layer.ids.host();
  const std::vector<float> weights = layer.weights.host();
  const Routing want =
      route(hashed<T>(layer.x_values, 0, layer.x.size), hashed<T>(layer.gate_values, 0, layer.gate.size), s.n,
            s.hidden, s.num_experts, s.k, true);
  double error = 0, norm = 0;
  int wrong = 0, ties = 0;
  for (int t = 0; t < s.n; ++t) {
    if (want.gaps[t] < 1e-4) {
      ++ties;
      continue;
    }
    for (int i = t * s.k; i < (t + 1) * s.k; ++i) {
      wrong += ids[i] != want.ids[i];
      error += std::pow(weights[i] - want.weights[i], 2);
      norm += want.weights[i] * want.weights[i];
    }
  }
  error = std::sqrt(error / std::max(norm, 1e-300));
  expect(wrong == 0, "router ids", wrong);
  expect(error < 1e-5, "router weights", error);
  std::printf("  %-28s router: normalised error of weights %.1e, %d of %d tokens near a tie\n", name, error,
              ties, s.n);
  // A token alone gets the same bits.
  if (s.n > 1) {
    layer.router(1, 0);
    const std::vector<float> alone = layer.weights.host();
    expect(std::memcmp(alone.data(), weights.data(), size_t(s.k) * 4) == 0, "router bits alone", 0);
  }
}

void check_plan(const MoePlan& plan, const Shape& s, int n, const std::vector<int32_t>& ids,
                const std::vector<float>& weights, const std::vector<int32_t>& slots, int tile_rows) {
  std::vector<RoutedRow> want;
  std::vector<int32_t> begin(s.num_experts + 1);
  for (int e = 0; e < s.num_experts; ++e) {
    begin[e] = int32_t(want.size());
    if (slots[e] < 0) continue;
    for (int p = 0; p < n * s.k; ++p) {
      if (ids[p] == e) want.push_back({p, weights[p]});
    }
  }
  begin[s.num_experts] = int32_t(want.size());
  MoeCounters counters;
  CUDA_CHECK(cudaMemcpy(&counters, plan.counters, sizeof counters, cudaMemcpyDeviceToHost));
  std::vector<RoutedRow> rows(want.size());
  CUDA_CHECK(cudaMemcpy(rows.data(), plan.rows, rows.size() * sizeof(RoutedRow), cudaMemcpyDeviceToHost));
  expect(counters.num_rows == int32_t(want.size()), "permute: rows", counters.num_rows);
  expect(want.empty() || std::memcmp(rows.data(), want.data(), rows.size() * sizeof(RoutedRow)) == 0,
         "permute: order", 0);
  std::vector<MoeTile> tiles(counters.num_tiles);
  CUDA_CHECK(cudaMemcpy(tiles.data(), plan.tiles, tiles.size() * sizeof(MoeTile), cudaMemcpyDeviceToHost));
  int32_t at = 0;
  for (const MoeTile& tile : tiles) {
    const int e = int(std::upper_bound(begin.begin(), begin.end(), tile.row_begin) - begin.begin()) - 1;
    expect(tile.row_begin == at && tile.rows > 0 && tile.rows <= tile_rows, "permute: tile", tile.rows);
    expect(tile.slot == slots[e] && tile.row_begin + tile.rows <= begin[e + 1], "permute: tile expert", e);
    at += tile.rows;
  }
  expect(at == int32_t(want.size()), "permute: tiles cover the rows", at);
}

template <class T>
std::vector<double> reference_y(const Layer<T>& layer, const std::vector<int32_t>& ids,
                                const std::vector<float>& weights) {
  const Shape& s = layer.s;
  const int64_t hidden = s.hidden, inner = s.intermediate;
  const std::vector<float> x = hashed<T>(layer.x_values, 0, layer.x.size);
  std::vector<double> y(size_t(s.n) * s.k * hidden, 0.0);
  std::vector<std::thread> threads;
  const int num_threads = int(std::max(1u, std::thread::hardware_concurrency()));
  for (int worker = 0; worker < num_threads; ++worker) {
    threads.emplace_back([&, worker] {
      for (int e = worker; e < s.num_experts; e += num_threads) {
        if (layer.slots[e] < 0) continue;
        std::vector<int> pairs;
        for (int p = 0; p < s.n * s.k; ++p) {
          if (ids[p] == e) pairs.push_back(p);
        }
        if (pairs.empty()) continue;
        const size_t slot = layer.slots[e];
        const std::vector<float> w13 =
            hashed<T>(layer.w13_values, slot * 2 * inner * hidden, 2 * inner * hidden);
        const std::vector<float> w2 = hashed<T>(layer.w2_values, slot * hidden * inner, hidden * inner);
        std::vector<double> h(inner);
        for (int p : pairs) {
          const float* const row = x.data() + p / s.k * hidden;
          const auto dot = [](const float* a, const auto* b, int64_t count) {
            double sum[8] = {};
            for (int64_t i = 0; i < count; i += 8) {
              for (int j = 0; j < 8; ++j) sum[j] += static_cast<double>(a[i + j]) * b[i + j];
            }
            return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
          };
          for (int64_t i = 0; i < inner; ++i) {
            const double g = dot(&w13[i * hidden], row, hidden),
                         u = dot(&w13[(inner + i) * hidden], row, hidden);
            h[i] = g / (1 + std::exp(-g)) * u;
          }
          for (int64_t i = 0; i < hidden; ++i)
            y[p * hidden + i] = weights[p] * dot(&w2[i * inner], h.data(), inner);
        }
      }
    });
  }
  for (std::thread& t : threads) t.join();
  return y;
}

/// The combine of the GPU's own y must be the tree sum bit for bit, whole and cut into partial sums.
template <class T>
void check_combine(Layer<T>& layer, const std::vector<int32_t>& ids) {
  const Shape& s = layer.s;
  const std::vector<T> y = layer.y.host();
  int tree = 1;
  while (tree < s.num_experts) tree *= 2;
  std::vector<T> want_whole(size_t(s.n) * s.hidden), want_partials;
  std::vector<int32_t> offsets = {0};
  std::vector<std::vector<float>> partials;
  for (int t = 0; t < s.n; ++t) {
    std::vector<int> slot_of(tree, -1);
    for (int i = 0; i < s.k; ++i) slot_of[ids[t * s.k + i]] = i;
    size_t cuts = 0;
    for (int c = 0; c < s.hidden; ++c) {
      std::vector<float> emitted;
      TreeSum sum{.value = [&](int32_t id) -> std::optional<float> {
                    if (slot_of[id] < 0 || layer.slots[id] < 0) return std::nullopt;
                    return static_cast<float>(y[(size_t(t) * s.k + slot_of[id]) * s.hidden + c]);
                  },
                  .foreign = [](int32_t) { return false; },
                  .round = [](float v) { return static_cast<float>(T(v)); },
                  .emit = [&](float v) { emitted.push_back(v); }};
      const auto whole = sum(0, tree);
      want_whole[size_t(t) * s.hidden + c] = T(whole.sum.value_or(0.0f));
      if (c % 8 == 0) {  // the cut is the same in every column: some suffice
        sum.foreign = [&](int32_t id) { return slot_of[id] >= 0 && layer.slots[id] < 0; };
        const auto top = sum(0, tree);
        if (!top.has_foreign && top.sum) emitted.push_back(*top.sum);
        if (c == 0) {
          cuts = emitted.size();
          for (size_t i = 0; i < cuts; ++i) partials.emplace_back();
        }
        for (size_t i = 0; i < cuts; ++i) partials[offsets.back() + i].push_back(emitted[i]);
      }
    }
    offsets.push_back(offsets.back() + int32_t(cuts));
  }
  const std::vector<T> whole = layer.out.host();
  expect(std::memcmp(whole.data(), want_whole.data(), whole.size() * sizeof(T)) == 0, "combine bits", 0);
  const DeviceArray<int32_t> device_offsets(offsets);
  DeviceArray<T> out(size_t(offsets.back()) * s.hidden);
  out.poison();
  layer.combine(s.n, 0, device_offsets.data, out.data);
  const std::vector<T> got = out.host();
  int wrong = 0;
  for (size_t row = 0; row < partials.size(); ++row) {
    for (size_t c = 0; c < partials[row].size(); ++c) {
      const T want(partials[row][c]);
      wrong += std::memcmp(&got[row * s.hidden + c * 8], &want, sizeof(T)) != 0;
    }
  }
  expect(wrong == 0, "combine of partial sums, bits", wrong);
}

template <class T>
void check_experts(const char* name, Shape shape, int kind, uint64_t seed, bool with_reference = true) {
  Layer<T> layer(shape, seed);
  const Shape& s = layer.s;
  std::mt19937_64 random(seed);
  if (with_reference && s.n <= 400) check_router(layer, name);
  const std::vector<int32_t> ids = random_ids(s, kind, random);
  std::vector<float> weights(ids.size());
  std::uniform_real_distribution<float> uniform(0.01f, 0.5f);
  for (float& w : weights) w = uniform(random);
  layer.set_routing(ids, weights);

  const size_t y_count = layer.y.size;
  DeviceArray<T> first_y(y_count), first_out(layer.out.size);
  double error = 0;
  for (const int tile_rows : {64, 128, 256}) {
    layer.poison();
    CUDA_CHECK(cudaMemset(layer.expert_tokens.data, 0, layer.expert_tokens.size * 8));
    layer.permute(s.n, tile_rows, 0);
    if (s.n <= 5000) check_plan(layer.plan, s, s.n, ids, weights, layer.slots, tile_rows);
    const std::vector<unsigned long long> counted = layer.expert_tokens.host();
    for (int e = 0; e < s.num_experts; ++e) {
      const auto want = layer.slots[e] < 0 ? 0 : std::count(ids.begin(), ids.end(), e);
      expect(int64_t(counted[e]) == want, "permute: expert_tokens", double(counted[e]));
    }
    layer.gemm(tile_rows, 0);
    layer.combine(s.n, 0);
    CUDA_CHECK(cudaDeviceSynchronize());
    if (tile_rows == 64) {
      CUDA_CHECK(cudaMemcpy(first_y.data, layer.y.data, y_count * sizeof(T), cudaMemcpyDeviceToDevice));
      CUDA_CHECK(
          cudaMemcpy(first_out.data, layer.out.data, layer.out.size * sizeof(T), cudaMemcpyDeviceToDevice));
      if (with_reference) {
        const std::vector<double> want = reference_y(layer, ids, weights);
        const std::vector<T> got = layer.y.host();
        double difference = 0, norm = 0;
        for (size_t i = 0; i < want.size(); ++i) {
          if (layer.slots[ids[i / s.hidden]] < 0) continue;
          difference += std::pow(static_cast<float>(got[i]) - want[i], 2);
          norm += want[i] * want[i];
        }
        error = norm > 0 ? std::sqrt(difference / norm) : 0;
        expect(error < 6e-3, "experts: normalised error", error);
        if (s.n <= 400) check_combine(layer, ids);
      }
    } else {
      expect(differences(first_y, layer.y, y_count) == 0, "bits of y with tile rows", tile_rows);
      expect(differences(first_out, layer.out, layer.out.size) == 0, "bits of out with tile rows", tile_rows);
    }
  }
  // The last token alone: first in its batch, with other tile shapes and neighbours.
  if (s.n > 1) {
    const size_t last = size_t(s.n - 1);
    CUDA_CHECK(cudaMemcpy(layer.x.data, layer.x.data + last * s.hidden, s.hidden * sizeof(T),
                          cudaMemcpyDeviceToDevice));
    CUDA_CHECK(cudaMemcpy(layer.ids.data, layer.ids.data + last * s.k, s.k * 4, cudaMemcpyDeviceToDevice));
    CUDA_CHECK(
        cudaMemcpy(layer.weights.data, layer.weights.data + last * s.k, s.k * 4, cudaMemcpyDeviceToDevice));
    layer.poison();
    layer.permute(1, 64, 0);
    layer.gemm(64, 0);
    layer.combine(1, 0);
    std::vector<T> alone(s.hidden), in_batch(s.hidden);
    CUDA_CHECK(cudaMemcpy(alone.data(), layer.out.data, s.hidden * sizeof(T), cudaMemcpyDeviceToHost));
    CUDA_CHECK(cudaMemcpy(in_batch.data(), first_out.data + last * s.hidden, s.hidden * sizeof(T),
                          cudaMemcpyDeviceToHost));
    expect(std::memcmp(alone.data(), in_batch.data(), s.hidden * sizeof(T)) == 0, "bits of a token alone", 0);
  }
  std::printf("  %-28s experts: normalised error %.1e%s\n", name, error,
              with_reference ? "" : " (bits only)");
  std::fflush(stdout);
}

template <class T>
void check_all(const char* dtype, uint64_t seed) {
  std::printf("checks, %s, seed %llu\n", dtype, static_cast<unsigned long long>(seed));
  check_experts<T>("one token", {.n = 1, .hidden = 256, .intermediate = 64, .num_experts = 32, .k = 8}, 0,
                   seed + 1);
  check_experts<T>("37 tokens, 1 of 3 local",
                   {.n = 37, .hidden = 256, .intermediate = 64, .num_experts = 32, .k = 8, .local_stride = 3},
                   0, seed + 2);
  check_experts<T>("odd sizes 520, 72",
                   {.n = 301, .hidden = 520, .intermediate = 72, .num_experts = 4, .k = 2}, 1, seed + 3);
  check_experts<T>("one expert", {.n = 397, .hidden = 136, .intermediate = 40, .num_experts = 1, .k = 1}, 0,
                   seed + 4);
  check_experts<T>("all on eight of 32",
                   {.n = 2600, .hidden = 256, .intermediate = 64, .num_experts = 32, .k = 8}, 3, seed + 5);
  check_experts<T>("two-launch permutation",
                   {.n = 5000, .hidden = 64, .intermediate = 8, .num_experts = 16, .k = 2}, 1, seed + 6);
  check_experts<T>(
      "10 of 160 experts, skewed",
      {.n = 77, .hidden = 256, .intermediate = 104, .num_experts = 160, .k = 10, .local_stride = 2}, 1,
      seed + 7);
  check_experts<T>("none local",
                   {.n = 9, .hidden = 64, .intermediate = 64, .num_experts = 64, .k = 1, .local_stride = 64},
                   1, seed + 8);
  check_experts<T>("30B layer, 33 tokens",
                   {.n = 33, .hidden = 2048, .intermediate = 768, .num_experts = 128, .k = 8}, 0, seed + 9);
  check_experts<T>("30B layer, 4,097 tokens",
                   {.n = 4097, .hidden = 2048, .intermediate = 768, .num_experts = 128, .k = 8}, 1, seed + 10,
                   false);
}

// ---------------------------------------------------------------- timing

/// Median µs of a graph of `body`, which is replayed until it has run about 40 ms.
double time_us(cudaStream_t stream, const std::function<void()>& body) {
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  body();
  CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  CUDA_CHECK(cudaGraphInstantiate(&exec, graph, 0));
  cudaEvent_t start, stop;
  CUDA_CHECK(cudaEventCreate(&start));
  CUDA_CHECK(cudaEventCreate(&stop));
  std::vector<float> times;
  float total = 0;
  for (int i = 0; i < 200 && (i < 13 || total < 40.0f); ++i) {
    CUDA_CHECK(cudaEventRecord(start, stream));
    CUDA_CHECK(cudaGraphLaunch(exec, stream));
    CUDA_CHECK(cudaEventRecord(stop, stream));
    CUDA_CHECK(cudaEventSynchronize(stop));
    float ms;
    CUDA_CHECK(cudaEventElapsedTime(&ms, start, stop));
    if (i >= 3) times.push_back(ms), total += ms;
  }
  CUDA_CHECK(cudaEventDestroy(start));
  CUDA_CHECK(cudaEventDestroy(stop));
  CUDA_CHECK(cudaGraphExecDestroy(exec));
  CUDA_CHECK(cudaGraphDestroy(graph));
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return 1000.0 * times[times.size() / 2];
}

double read_bandwidth(cudaStream_t stream) {
  const size_t bytes = size_t(4) << 30;
  DeviceArray<uint8_t> from(bytes);
  DeviceArray<uint32_t> to(1);
  fill_kernel<<<4096, 256>>>(reinterpret_cast<__nv_bfloat16*>(from.data), int64_t(bytes / 2),
                             HashedValues{1, 1});
  const double us = time_us(stream, [&] {
    read_kernel<<<132 * 8, 512, 0, stream>>>(reinterpret_cast<const uint4*>(from.data), int64_t(bytes / 16),
                                             to.data);
  });
  return double(bytes) / us * 1e-6;  // TB/s
}

template <class T>
void time_layer(const char* dtype, const std::vector<int>& sizes, double tb_s, double tflop_s,
                bool all_tiles) {
  cudaStream_t stream;
  CUDA_CHECK(cudaStreamCreate(&stream));
  Layer<T> layer({.n = 16384, .hidden = 2048, .intermediate = 768, .num_experts = 128, .k = 8}, 99);
  const Shape& s = layer.s;
  std::printf(
      "%s: µs of router | permute, products, combine | the layer (the last three); bound at %.2f TB/s, %.0f "
      "TFLOP/s\n",
      dtype, tb_s, tflop_s);
  std::printf("%-9s %6s %5s | %7s | %7s %8s %7s | %8s %8s %6s\n", "routing", "tokens", "tile", "router",
              "permute", "products", "combine", "layer", "bound", "%");
  for (const auto& [kind, routing] :
       {std::pair{2, "balanced"}, std::pair{0, "uniform"}, std::pair{1, "power law"}}) {
    for (const int n : sizes) {
      std::mt19937_64 random(n);
      Shape step = s;
      step.n = n;
      const std::vector<int32_t> ids = random_ids(step, kind, random);
      layer.set_routing(ids, std::vector<float>(ids.size(), 0.125f));
      std::vector<bool> active(s.num_experts);
      for (int e : ids) active[e] = true;
      const double weight_bytes =
          3.0 * s.hidden * s.intermediate * 2 * double(std::count(active.begin(), active.end(), true));
      const double flop = 6.0 * n * s.k * s.hidden * s.intermediate;
      const double bound = std::max(weight_bytes / tb_s, flop / tflop_s) * 1e-6;
      const int chosen = grouped_gemm_tile_rows(n, s.k, s.num_experts);
      for (const int tile : {64, 128, 256}) {
        if (tile != chosen && !all_tiles) continue;
        if (tile * s.num_experts * 6 < n * s.k) continue;
        const double permute = time_us(stream, [&] { layer.permute(n, tile, stream); });
        const double both = time_us(stream, [&] {
          layer.permute(n, tile, stream);
          layer.gemm(tile, stream);
        });
        const double combine = time_us(stream, [&] { layer.combine(n, stream); });
        const double whole = time_us(stream, [&] {
          layer.permute(n, tile, stream);
          layer.gemm(tile, stream);
          layer.combine(n, stream);
        });
        double router = 0;
        if (tile == chosen && kind == 2) {
          router = time_us(stream, [&] { layer.router(n, stream); });
          layer.set_routing(ids, std::vector<float>(ids.size(), 0.125f));
        }
        std::printf("%-9s %6d %4d%c | %7.1f | %7.1f %8.1f %7.1f | %8.1f %8.1f %6.1f\n", routing, n, tile,
                    tile == chosen ? '*' : ' ', router, permute, both - permute, combine, whole, bound,
                    100 * bound / whole);
        std::fflush(stdout);
      }
    }
  }
  CUDA_CHECK(cudaStreamDestroy(stream));
}

}  // namespace

int main(int argc, char** argv) {
  const auto asked = [&](const char* what) {
    return std::any_of(argv + 1, argv + argc, [&](const char* arg) { return std::strcmp(arg, what) == 0; });
  };
  try {
    const auto seed = static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count());
    if (argc == 1 || asked("check")) {
      check_all<__nv_bfloat16>("bfloat16", seed);
      check_all<__half>("float16", seed + 1000);
      std::printf(failures ? "%d checks FAILED\n" : "all checks passed\n", failures);
    }
    if (argc == 1 || asked("bench")) {
      cudaStream_t stream;
      CUDA_CHECK(cudaStreamCreate(&stream));
      const double tb_s = read_bandwidth(stream);
      constexpr double kMatrixProductTflops = 753;  // cuBLAS, bf16, 8192³, on an H100 80GB
      time_layer<__nv_bfloat16>("bfloat16", {64, 256, 512, 1024, 2048, 4096, 8192, 16384}, tb_s,
                                kMatrixProductTflops, asked("all-tiles"));
      time_layer<__half>("float16", {64, 1024, 16384}, tb_s, kMatrixProductTflops, false);
    }
  } catch (const std::exception& e) {
    std::printf("stopped: %s\n", e.what());
    return 1;
  }
  return failures ? 1 : 0;
}
