#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "moerun/device.h"
#include "moerun/model_config.h"

namespace moerun {

/// A tensor that a checkpoint of a config must have. 1-D tensors have rows = 0.
struct ExpectedTensor {
  std::string name;
  int64_t rows = 0, cols = 0;
};

/// Names and shapes as in Hugging Face `Qwen3MoeForCausalLM.state_dict()`.
std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config);

/// Throws BadInput with every tensor that is missing, has another shape, or is not known.
void check_tensors(const ModelConfig& config, const Checkpoint& checkpoint);

/// Where weights come from: a checkpoint, or numbers made from the tensor's name (`load_format: dummy`).
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  /// The whole tensor as [rows, cols]; vectors are [1, cols]. Throws Error when it is absent.
  virtual HostMatrix get(const std::string& name, int64_t rows, int64_t cols) const = 0;
};

class CheckpointWeights : public WeightSource {
 public:
  /// `checkpoint` must outlive it, and has passed check_tensors.
  explicit CheckpointWeights(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}
  HostMatrix get(const std::string& name, int64_t rows, int64_t cols) const override;

 private:
  const Checkpoint& checkpoint_;
};

/// Matrices uniform in ±0.02·√3 (a standard deviation of 0.02, as models are initialised), norms around 1.
class DummyWeightSource : public WeightSource {
 public:
  HostMatrix get(const std::string& name, int64_t rows, int64_t cols) const override;
};

/// Rows [row0, row1) and columns [col0, col1) of a matrix.
HostMatrix part_of(const HostMatrix& whole, int64_t row0, int64_t row1, int64_t col0, int64_t col1);

}  // namespace moerun
