#include "io/safetensors.h"
#include "tests/fuzz/harness.h"

namespace moerun::fuzz {

namespace {

/// Opens the folder and touches the ends of every tensor.
void open_folder(const std::string& folder) {
  const Checkpoint checkpoint = Checkpoint::open(folder);
  unsigned sum = 0;
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    uint64_t elements = 1;
    for (const int64_t size : tensor.shape) elements *= static_cast<uint64_t>(size);
    if (elements == 0) continue;
    const auto* const first = static_cast<const unsigned char*>(tensor.data);
    sum += first[0] + first[elements * size_of(tensor.dtype) - 1];
  }
  volatile unsigned sink = sum;  // so that the bytes are read
  static_cast<void>(sink);
}

}  // namespace

/// A safetensors file.
void read_safetensors(std::string_view bytes) {
  static const std::string folder = scratch() + "/one";
  std::filesystem::create_directories(folder);
  write_scratch("one/model.safetensors", bytes);
  open_folder(folder);
}

/// model.safetensors.index.json beside a file with one tensor, `a`.
void read_index_file(std::string_view bytes) {
  static const std::string folder = scratch() + "/index";
  std::filesystem::create_directories(folder);
  const std::string header = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  std::string shard(8, '\0');
  shard[0] = static_cast<char>(header.size());
  write_scratch("index/a.safetensors", shard + header + "\0\0\0\0");
  write_scratch("index/model.safetensors.index.json", bytes);
  open_folder(folder);
}

}  // namespace moerun::fuzz
