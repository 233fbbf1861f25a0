// The collectives of the tensor-parallel ranks over NCCL: what arrives is derived here from (rank, place),
// sums follow the fixed tree, and a recorded graph gives the same as plain launches.
#include "comm/nccl_collective.h"
#include "tests/gpu/side.h"
#include "tests/gpu_mpi/suite.h"

namespace moerun::gpu_mpi_test {

namespace {

uint16_t element(DType dtype, int rank, int step, int64_t i) {
  return test::narrow(
      dtype, mpi_test::value_of(static_cast<uint64_t>(100 + rank + 1000 * step), static_cast<uint64_t>(i)));
}

/// Sum over ranks [begin, end), every node rounded.
float tree(DType dtype, int begin, int end, int step, int64_t i) {
  if (end - begin == 1) return test::widen(dtype, element(dtype, begin, step, i));
  const int middle = begin + (end - begin) / 2;
  return test::round_to(dtype, tree(dtype, begin, middle, step, i) + tree(dtype, middle, end, step, i));
}

std::string check(const Place& place, int64_t rows, int64_t cols) {
  const std::unique_ptr<Device> device = make_test_device(place, size_t{512} << 20);
  const DType dtype = device->dtype();
  const int size = place.env->size(), rank = place.env->rank();
  const int64_t block = rows * cols;
  NcclCollective collective(place.env->world(), *device, static_cast<size_t>(size * block) * size_of(dtype));
  const Tensor whole = device->tensor(size * rows, cols, dtype, "whole"),
               other = device->tensor(size * rows, cols, dtype, "other"),
               part = device->tensor(rows, cols, dtype, "part"),
               sum = device->tensor(rows, cols, dtype, "sum");
  std::string fault;  // the first; this rank goes on, since its peers do
  const auto compare = [&](const char* what, const Tensor& tensor, auto&& expected) {
    std::vector<uint16_t> got(static_cast<size_t>(tensor.rows * cols));
    device->copy_to_host(got.data(), tensor.data, got.size() * 2);
    for (size_t i = 0; i < got.size(); ++i)
      if (fault.empty() && test::widen(dtype, got[i]) != expected(static_cast<int64_t>(i)))
        fault = fmt::format("{}, element {}", what, i);
  };
  for (int step = 0; step < 4; ++step) {  // run, recorded, replayed, replayed
    std::vector<uint16_t> values(static_cast<size_t>(size * block));
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = element(dtype, rank, step, static_cast<int64_t>(i));
    device->copy_to_device(whole.data, values.data(), values.size() * 2);
    device->copy_to_device(part.data, values.data(), static_cast<size_t>(block) * 2);
    device->synchronize();
    device->run({.num_tokens = 1}, [&] {
      collective.all_to_all(whole, other);
      collective.reduce_scatter(whole, sum);
      collective.all_gather(part, whole);
    });
    compare("all_to_all", other, [&](int64_t i) {
      return test::widen(dtype, element(dtype, static_cast<int>(i / block), step, rank * block + i % block));
    });
    compare("reduce_scatter", sum, [&](int64_t i) { return tree(dtype, 0, size, step, rank * block + i); });
    compare("all_gather", whole, [&](int64_t i) {
      return test::widen(dtype, element(dtype, static_cast<int>(i / block), step, i % block));
    });
  }
  if (fault.empty() && collective.seconds() <= 0) fault = "no time has passed";
  return fault;
}

}  // namespace

void test_nccl_collectives(const Place& place, mpi_test::Suite& suite) {
  if (!place.nccl) return;
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 8}, {33, 2048}, {7, 72}})
    suite.run(fmt::format("NCCL collectives of {} × {} over {} ranks", rows, cols, place.env->size()),
              [&, rows = rows, cols = cols] { return check(place, rows, cols); });
}

}  // namespace moerun::gpu_mpi_test
