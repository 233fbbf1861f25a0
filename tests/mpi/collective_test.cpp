#include "comm/mpi_collective.h"
#include "tests/mpi/harness.h"

namespace moerun::mpi_test {

namespace {

struct Case {
  DType dtype;
  bool in_place;
  int64_t rows, cols;
};

/// Element i of what rank r contributes, as stored in dtype.
float element(int r, int64_t i, DType dtype) {
  float value = value_of(100 + static_cast<uint64_t>(r), static_cast<uint64_t>(i));
  store_float(&value, dtype, 0, value);
  return load_float(&value, dtype, 0);
}

void fill(const Tensor& tensor, int rank) {
  for (int64_t i = 0; i < tensor.rows * tensor.cols; ++i) {
    store_float(tensor.data, tensor.dtype, i, element(rank, i, tensor.dtype));
  }
}

/// Sum over ranks [begin, end) of element i, every node rounded.
float tree(int begin, int end, int64_t i, DType dtype) {
  if (end - begin == 1) return element(begin, i, dtype);
  const int middle = begin + (end - begin) / 2;
  float node = tree(begin, middle, i, dtype) + tree(middle, end, i, dtype);
  store_float(&node, dtype, 0, node);
  return load_float(&node, dtype, 0);
}

std::string check(const MpiEnv& env, const Case& c) {
  MemoryDevice device(c.dtype, c.in_place);
  const int size = env.size();
  const auto bytes = static_cast<size_t>(size * c.rows * c.cols) * size_of(c.dtype);
  MpiCollective collective(env.world(), device, bytes);
  if (collective.rank() != env.rank() || collective.size() != size) return "rank or size";
  const int64_t block = c.rows * c.cols;

  const Tensor part = device.tensor(c.rows, c.cols, c.dtype, "part");
  const Tensor whole = device.tensor(size * c.rows, c.cols, c.dtype, "whole");
  const Tensor other = device.tensor(size * c.rows, c.cols, c.dtype, "other");
  std::string fault;  // the first; this rank goes on, since its peers do
  const auto note = [&fault](const std::string& text) {
    if (fault.empty()) fault = text;
  };
  fill(part, env.rank());
  collective.all_gather(part, whole);
  for (int64_t i = 0; i < size * block; ++i) {
    if (load_float(whole.data, c.dtype, i) != element(static_cast<int>(i / block), i % block, c.dtype)) {
      note(fmt::format("all_gather, element {}", i));
    }
  }
  // In place: `in` is this rank's part of `out`.
  const Tensor mine = other.slice(env.rank() * c.rows, (env.rank() + 1) * c.rows);
  fill(mine, env.rank());
  collective.all_gather(mine, other);
  if (std::memcmp(other.data, whole.data, bytes) != 0) note("all_gather in place");

  fill(whole, env.rank());
  collective.all_to_all(whole, other);
  for (int64_t i = 0; i < size * block; ++i) {
    const int64_t theirs = env.rank() * block + i % block;
    if (load_float(other.data, c.dtype, i) != element(static_cast<int>(i / block), theirs, c.dtype)) {
      note(fmt::format("all_to_all, element {}", i));
    }
  }
  collective.reduce_scatter(whole, part);
  for (int64_t i = 0; i < block; ++i) {
    if (load_float(part.data, c.dtype, i) != tree(0, size, env.rank() * block + i, c.dtype)) {
      note(fmt::format("reduce_scatter, element {}", i));
    }
  }
  return fault;
}

}  // namespace

void test_collectives(const MpiEnv& env, Suite& suite) {
  for (const DType dtype : {DType::float32, DType::float16, DType::bfloat16}) {
    for (const bool in_place : {true, false}) {
      for (const auto& [rows, cols] : {std::pair{0, 16}, {1, 1}, {3, 37}, {64, 256}}) {
        suite.run(fmt::format("collectives of {} [{}, {}]{}", name_of(dtype), rows, cols,
                              in_place ? "" : " through the host"),
                  [&] {
                    return check(env, {dtype, in_place, rows, cols});
                  });
      }
    }
  }
  suite.run("shapes that do not fit are refused", [&]() -> std::string {
    MemoryDevice device(DType::float32, true);
    MpiCollective collective(env.world(), device, 1 << 10);
    const Tensor in = device.tensor(env.size() * 2, 4, DType::float32, "in");
    try {
      collective.reduce_scatter(in, in.first(1));
    } catch (const Error&) {
      return "";
    }
    return "no error";
  });
}

}  // namespace moerun::mpi_test
