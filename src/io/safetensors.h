#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "moerun/dtype.h"

namespace moerun {

/// A tensor of a checkpoint, in memory-mapped file: pages are read when they are touched.
struct StoredTensor {
  const void* data = nullptr;
  DType dtype = DType::float32;
  std::vector<int64_t> shape;
  std::string file;  ///< for messages
};

/// The tensors of a Hugging Face folder, of the files that find_checkpoint_files chooses. Immutable once
/// open: any thread may read.
class Checkpoint {
 public:
  /// Maps every file and checks its header against its size: a truncated file is found here and not by a
  /// read past its end. Throws BadInput naming all faulty files and tensors.
  static Checkpoint open(const std::string& model_dir);

  /// Null when there is no such tensor.
  const StoredTensor* find(const std::string& name) const;
  const std::map<std::string, StoredTensor>& tensors() const { return tensors_; }
  uint64_t bytes() const { return bytes_; }                         ///< of all files
  const std::vector<std::string>& files() const { return files_; }  ///< paths, by name
  const std::vector<std::string>& notes() const { return notes_; }  ///< sentences for the user

 private:
  class Mapping;
  std::vector<std::shared_ptr<Mapping>> mappings_;
  std::map<std::string, StoredTensor> tensors_;
  std::vector<std::string> files_, notes_;
  uint64_t bytes_ = 0;
};

}  // namespace moerun
