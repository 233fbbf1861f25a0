#include "io/safetensors.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "base/file_descriptor.h"
#include "io/checkpoint_files.h"
#include "io/safetensors_header.h"
#include "job/faults.h"
#include "moerun/error.h"

namespace moerun {

/// A file mapped for reading.
class Checkpoint::Mapping {
 public:
  explicit Mapping(const std::string& path) {
    const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    struct stat status {};
    if (!file || fstat(file.get(), &status) != 0)
      throw BadInput(fmt::format("{}: cannot be read ({})", path, std::strerror(errno)));
    if (!S_ISREG(status.st_mode)) throw BadInput(fmt::format("{}: is no regular file", path));
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

Checkpoint Checkpoint::open(const std::string& model_dir) {
  const CheckpointFiles found = find_checkpoint_files(model_dir);
  Checkpoint checkpoint;
  checkpoint.notes_ = found.notes;
  Faults faults;
  for (const std::string& file : found.names) {
    const std::string path = fmt::format("{}/{}", model_dir, file);
    try {
      auto mapping = std::make_shared<Mapping>(path);
      for (const auto& [name, entry] :
           read_safetensors_header(path, mapping->data(), mapping->size(), faults)) {
        const StoredTensor tensor{
            .data = mapping->data() + entry.begin, .dtype = entry.dtype, .shape = entry.shape, .file = path};
        const auto [at, is_new] = checkpoint.tensors_.emplace(name, tensor);
        if (!is_new) faults.add(fmt::format("{}: tensor {} is in {} too", path, name, at->second.file));
      }
      checkpoint.bytes_ += mapping->size();
      checkpoint.mappings_.push_back(std::move(mapping));
      checkpoint.files_.push_back(path);
    } catch (const BadInput& fault) {
      faults.add(fault.what());
    }
  }
  for (const auto& [name, file] : found.promised)
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
