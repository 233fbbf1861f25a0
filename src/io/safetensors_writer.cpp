#include "io/safetensors_writer.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <tuple>

#include "io/safetensors_header.h"

namespace moerun {

namespace {

const char* name_in_header(DType dtype) {
  return std::find_if(std::begin(kStoredDTypes), std::end(kStoredDTypes),
                      [dtype](const StoredDType& one) { return one.dtype == dtype; })
      ->name;
}

}  // namespace

uint64_t NewTensor::bytes() const {
  uint64_t bytes = size_of(dtype);
  for (const int64_t size : shape) bytes *= static_cast<uint64_t>(size);
  return bytes;
}

bool stands_before(const NewTensor& a, const NewTensor& b) {
  return std::make_tuple(-static_cast<int>(size_of(a.dtype)), std::cref(a.name)) <
         std::make_tuple(-static_cast<int>(size_of(b.dtype)), std::cref(b.name));
}

std::string safetensors_header(const std::vector<NewTensor>& tensors) {
  constexpr size_t kAlignment = 8;
  nlohmann::json header;
  header["__metadata__"]["format"] = "pt";
  uint64_t begin = 0;
  for (const NewTensor& tensor : tensors) {
    const uint64_t end = begin + tensor.bytes();
    header[tensor.name] = {
        {"dtype", name_in_header(tensor.dtype)}, {"shape", tensor.shape}, {"data_offsets", {begin, end}}};
    begin = end;
  }
  std::string text = header.dump();
  text.append((kAlignment - text.size() % kAlignment) % kAlignment, ' ');
  const uint64_t length = text.size();
  std::string out(sizeof length, '\0');
  std::memcpy(out.data(), &length, sizeof length);
  return out + text;
}

}  // namespace moerun
