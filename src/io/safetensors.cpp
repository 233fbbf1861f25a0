#include "io/safetensors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "fault/file_descriptor.h"
#include "job/faults.h"
#include "moerun/error.h"

namespace moerun {

using Json = nlohmann::json;

/// A file mapped for reading.
class Checkpoint::Mapping {
 public:
  explicit Mapping(const std::string& path) {
    const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat status {};
    if (!file || fstat(file.get(), &status) != 0)
      throw BadInput(fmt::format("{}: cannot be read ({})", path, std::strerror(errno)));
    size_ = static_cast<size_t>(status.st_size);
    if (size_ == 0) throw BadInput(fmt::format("{}: is empty", path));
    data_ = mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.get(), 0);
    if (data_ == MAP_FAILED)
      throw BadInput(fmt::format("{}: cannot be mapped ({})", path, std::strerror(errno)));
  }
  ~Mapping() { munmap(data_, size_); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  const char* data() const { return static_cast<const char*>(data_); }
  size_t size() const { return size_; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

namespace {

bool read_dtype(const std::string& name, DType& dtype) {
  if (name == "BF16")
    dtype = DType::bfloat16;
  else if (name == "F16")
    dtype = DType::float16;
  else if (name == "F32")
    dtype = DType::float32;
  else
    return false;
  return true;
}

/// One entry of a header. Throws BadInput without the file's name.
StoredTensor read_entry(const Json& entry, const char* data, uint64_t data_bytes) {
  StoredTensor tensor;
  uint64_t begin = 0, end = 0, elements = 1;
  try {
    if (const std::string dtype = entry.at("dtype"); !read_dtype(dtype, tensor.dtype))
      throw BadInput(fmt::format("has dtype {}; BF16, F16 and F32 are supported", dtype));
    tensor.shape = entry.at("shape").get<std::vector<int64_t>>();
    begin = entry.at("data_offsets").at(0).get<uint64_t>();
    end = entry.at("data_offsets").at(1).get<uint64_t>();
  } catch (const Json::exception& error) {
    throw BadInput(fmt::format("has a malformed header entry ({})", error.what()));
  }
  for (const int64_t size : tensor.shape) {
    if (size < 0 || (size > 0 && elements > (uint64_t{1} << 48) / static_cast<uint64_t>(size)))
      throw BadInput(fmt::format("has the impossible shape [{}]", fmt::join(tensor.shape, ", ")));
    elements *= static_cast<uint64_t>(size);
  }
  if (begin > end || end > data_bytes)
    throw BadInput(fmt::format("lies at bytes {} to {} of {} bytes of data: the file is truncated", begin,
                               end, data_bytes));
  if (end - begin != elements * size_of(tensor.dtype))
    throw BadInput(fmt::format("has {} bytes where its shape [{}] and dtype {} need {}", end - begin,
                               fmt::join(tensor.shape, ", "), name_of(tensor.dtype),
                               elements * size_of(tensor.dtype)));
  tensor.data = data + begin;
  return tensor;
}

/// All tensors of one file; faults are collected.
void read_header(const std::string& path, const char* data, size_t size,
                 std::map<std::string, StoredTensor>& tensors, Faults& faults) {
  constexpr uint64_t kLengthBytes = 8, kMaxHeader = 100u << 20;
  uint64_t length = 0;
  if (size >= kLengthBytes) std::memcpy(&length, data, kLengthBytes);
  if (size < kLengthBytes || length > kMaxHeader || length > size - kLengthBytes) {
    faults.add(fmt::format(
        "{}: its header should take {} bytes and the file has {}: it is truncated, or no safetensors file",
        path, length, size));
    return;
  }
  const Json header = Json::parse(data + kLengthBytes, data + kLengthBytes + length, nullptr, false);
  if (!header.is_object()) {
    faults.add(fmt::format("{}: its header is no JSON object", path));
    return;
  }
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    try {
      StoredTensor tensor = read_entry(entry, data + kLengthBytes + length, size - kLengthBytes - length);
      tensor.file = path;
      if (!tensors.emplace(name, std::move(tensor)).second)
        faults.add(fmt::format("{}: tensor {} is in another file too", path, name));
    } catch (const BadInput& fault) {
      faults.add(fmt::format("{}: tensor {} {}", path, name, fault.what()));
    }
  }
}

/// The files that the index names, and which tensors it promises.
std::map<std::string, std::string> read_index(const std::string& path) {
  std::ifstream file(path);
  const Json json = Json::parse(file, nullptr, false);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object())
    throw BadInput(fmt::format("{}: has no weight_map", path));
  std::map<std::string, std::string> file_of;
  for (const auto& [name, value] : json["weight_map"].items()) {
    if (!value.is_string() || value.get<std::string>().find('/') != std::string::npos)
      throw BadInput(fmt::format("{}: the file of tensor {} is no file name", path, name));
    file_of[name] = value;
  }
  return file_of;
}

}  // namespace

Checkpoint Checkpoint::open(const std::string& model_dir) {
  namespace fs = std::filesystem;
  const std::string index = model_dir + "/model.safetensors.index.json";
  std::map<std::string, std::string> promised;
  std::set<std::string> files;
  if (fs::exists(index)) {
    promised = read_index(index);
    for (const auto& [name, file] : promised) files.insert(file);
  } else if (fs::exists(model_dir + "/model.safetensors")) {
    files.insert("model.safetensors");
  } else {
    throw BadInput(fmt::format(
        "{}: has neither model.safetensors nor model.safetensors.index.json (load_format: dummy needs none)",
        model_dir));
  }

  Checkpoint checkpoint;
  Faults faults;
  for (const std::string& file : files) {
    const std::string path = fmt::format("{}/{}", model_dir, file);
    try {
      auto mapping = std::make_shared<Mapping>(path);
      read_header(path, mapping->data(), mapping->size(), checkpoint.tensors_, faults);
      checkpoint.bytes_ += mapping->size();
      checkpoint.mappings_.push_back(std::move(mapping));
    } catch (const BadInput& fault) {
      faults.add(fault.what());
    }
  }
  for (const auto& [name, file] : promised)
    if (faults.count() == 0 && !checkpoint.tensors_.contains(name))
      faults.add(
          fmt::format("{}/{}: tensor {} is missing, which the index puts there", model_dir, file, name));
  faults.throw_if_any();
  return checkpoint;
}

const StoredTensor* Checkpoint::find(const std::string& name) const {
  const auto at = tensors_.find(name);
  return at == tensors_.end() ? nullptr : &at->second;
}

}  // namespace moerun
