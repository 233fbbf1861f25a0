#include "io/safetensors_header.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/json_file.h"
#include "moerun/error.h"

namespace moerun {

using Json = nlohmann::json;

namespace {

bool read_dtype(const Json& name, DType& dtype) {
  const auto* const found = std::find_if(std::begin(kStoredDTypes), std::end(kStoredDTypes),
                                         [&](const StoredDType& one) { return name == one.name; });
  if (found == std::end(kStoredDTypes)) return false;
  dtype = found->dtype;
  return true;
}

[[noreturn]] void malformed(const char* what) {
  throw BadInput(fmt::format("has a malformed header entry ({})", what));
}

/// [begin, end) within the data. Throws BadInput without the file's name.
void read_offsets(const Json& entry, uint64_t data_bytes, TensorEntry& tensor) {
  const auto offsets = entry.find("data_offsets");
  if (offsets == entry.end() || !offsets->is_array() || offsets->size() != 2 ||
      !(*offsets)[0].is_number_unsigned() || !(*offsets)[1].is_number_unsigned())
    malformed("data_offsets must be two numbers of bytes");
  tensor.begin = (*offsets)[0].get<uint64_t>();
  tensor.end = (*offsets)[1].get<uint64_t>();
  if (tensor.begin > tensor.end || tensor.end > data_bytes)
    throw BadInput(fmt::format("lies at bytes {} to {} of {} bytes of data: the file is truncated",
                               tensor.begin, tensor.end, data_bytes));
}

/// The shape, and how many elements it has. Throws as above.
uint64_t read_shape(const Json& entry, TensorEntry& tensor) {
  const auto shape = entry.find("shape");
  if (shape == entry.end() || !shape->is_array() || shape->size() > safetensors_limits::kDimensions ||
      !std::all_of(shape->begin(), shape->end(), [](const Json& size) { return size.is_number_unsigned(); }))
    malformed("shape must be a list of sizes");
  uint64_t elements = 1;
  for (const Json& size : *shape) {
    const auto count = size.get<uint64_t>();
    if (count > 0 && elements > safetensors_limits::kElements / count)
      throw BadInput(fmt::format("has the impossible shape {}", shape->dump()));
    elements *= count;
    tensor.shape.push_back(static_cast<int64_t>(std::min(count, safetensors_limits::kElements)));
  }
  return elements;
}

TensorEntry read_entry(const Json& entry, uint64_t data_bytes) {
  TensorEntry tensor;
  const auto dtype = entry.find("dtype");
  if (!entry.is_object() || dtype == entry.end() || !dtype->is_string()) malformed("it has no dtype");
  if (!read_dtype(*dtype, tensor.dtype))
    throw BadInput(fmt::format("has dtype {}; BF16, F16, F32 and F8_E4M3 are supported",
                               dtype->get<std::string>().substr(0, 20)));
  const uint64_t elements = read_shape(entry, tensor);
  read_offsets(entry, data_bytes, tensor);
  if (tensor.end - tensor.begin != elements * size_of(tensor.dtype))
    throw BadInput(fmt::format("has {} bytes where its shape [{}] and dtype {} need {}",
                               tensor.end - tensor.begin, fmt::join(tensor.shape, ", "),
                               name_of(tensor.dtype), elements * size_of(tensor.dtype)));
  return tensor;
}

/// The format wants every byte of the data to belong to one tensor.
void check_layout(const std::string& path, const std::map<std::string, TensorEntry>& tensors,
                  uint64_t data_bytes, Faults& faults) {
  std::vector<std::pair<const TensorEntry*, const std::string*>> by_place;
  by_place.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) by_place.emplace_back(&tensor, &name);
  std::sort(by_place.begin(), by_place.end(), [](const auto& a, const auto& b) {
    return std::tie(a.first->begin, a.first->end) < std::tie(b.first->begin, b.first->end);
  });
  uint64_t end = 0;
  const std::string* before = nullptr;
  for (const auto& [tensor, name] : by_place) {
    if (tensor->begin < end)
      faults.add(fmt::format("{}: tensors {} and {} overlap", path, *before, *name));
    else if (tensor->begin > end)
      faults.add(fmt::format("{}: bytes {} to {} of its data belong to no tensor", path, end, tensor->begin));
    end = std::max(end, tensor->end);
    before = name;
  }
  if (end < data_bytes)
    faults.add(fmt::format("{}: bytes {} to {} of its data belong to no tensor", path, end, data_bytes));
}

}  // namespace

std::map<std::string, TensorEntry> read_safetensors_header(const std::string& path, const char* data,
                                                           uint64_t size, Faults& faults) {
  constexpr uint64_t kLengthBytes = 8;
  constexpr int kNesting = 4;
  std::map<std::string, TensorEntry> tensors;
  uint64_t length = 0;
  if (size >= kLengthBytes) std::memcpy(&length, data, kLengthBytes);
  if (size < kLengthBytes || length > size - kLengthBytes) {
    faults.add(fmt::format(
        "{}: its header should take {} bytes and the file has {}: it is truncated, or no safetensors file",
        path, length, size));
    return tensors;
  }
  const uint64_t first = kLengthBytes + length, data_bytes = size - first;
  Json header;
  try {
    header = parse_json_object({data + kLengthBytes, length}, path + ": its header",
                               {.bytes = safetensors_limits::kHeaderBytes, .nesting = kNesting});
  } catch (const BadInput& fault) {
    faults.add(fault.what());
    return tensors;
  }
  const uint64_t faults_before = faults.count();
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    try {
      tensors.emplace(name, read_entry(entry, data_bytes));
    } catch (const BadInput& fault) {
      faults.add(fmt::format("{}: tensor {} {}", path, name, fault.what()));
    }
  }
  if (faults.count() == faults_before) check_layout(path, tensors, data_bytes, faults);
  for (auto& [name, tensor] : tensors) {
    tensor.begin += first;
    tensor.end += first;
  }
  return tensors;
}

}  // namespace moerun
