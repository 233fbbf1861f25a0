#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "model/key_value_scales.h"
#include "model/tensor_spec.h"
#include "moerun/device.h"
#include "moerun/model_config.h"

namespace moerun {

/// Throws BadInput with every tensor that is missing, has another shape, is there in two spellings, or is not
/// known. Returns sentences for the user.
std::vector<std::string> check_tensors(const ModelConfig& config, const Checkpoint& checkpoint);

/// Where weights come from: a checkpoint, or numbers made from the tensor's name (`load_format: dummy`).
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  /// The whole tensor as [rows, cols]; vectors are [1, cols]. Throws Error when it is absent.
  virtual HostMatrix get(const TensorSpec& spec) const = 0;
  /// [layers], or empty: all are 1.
  virtual std::vector<KeyValueScale> key_value_scales(const ModelConfig& config) const {
    (void)config;
    return {};
  }
};

class CheckpointWeights : public WeightSource {
 public:
  /// `checkpoint` must outlive it, and has passed check_tensors.
  explicit CheckpointWeights(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}
  HostMatrix get(const TensorSpec& spec) const override;
  std::vector<KeyValueScale> key_value_scales(const ModelConfig& config) const override {
    return find_key_value_scales(config, checkpoint_).of_layer;
  }

 private:
  const Checkpoint& checkpoint_;
};

/// Matrices uniform in ±0.02·√3 (a standard deviation of 0.02, as models are initialised), norms around 1.
/// Those in e4m3 are uniform in ±448, rounded, with one scale that makes them the same size.
class DummyWeightSource : public WeightSource {
 public:
  HostMatrix get(const TensorSpec& spec) const override;
};

/// Rows and columns of a matrix.
HostMatrix part_of(const HostMatrix& whole, const TensorPart& part);

}  // namespace moerun
