#include "model/stored_scales.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <atomic>
#include <cmath>

#include "moerun/error.h"
#include "moerun/half.h"

namespace moerun {

namespace {

int64_t count_of(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

/// A scale for each row may be a vector.
bool is_shape(const std::vector<int64_t>& stored, const std::vector<int64_t>& asked) {
  return stored == asked || (asked.back() == 1 && stored == std::vector<int64_t>{asked.front()});
}

/// Whether the bytes of a row have a NaN, without a branch in between.
bool has_nan(const uint8_t* row, int64_t count) {
  unsigned found = 0;
#pragma omp simd reduction(| : found)
  for (int64_t i = 0; i < count; ++i) found |= is_nan_e4m3(row[i]) ? 1u : 0u;
  return found != 0;
}

}  // namespace

void check_scales(const TensorSpec& spec, const StoredTensor& stored, const Checkpoint& checkpoint,
                  std::vector<std::string>& faults) {
  const std::string& name = spec.stored.front().name;
  const bool is_fp8 = stored.dtype == DType::e4m3;
  if (is_fp8 && !spec.format.is_fp8())
    faults.push_back(fmt::format(
        "{}: tensor {} is in FP8, and by config.json (quantization_config) it is not", stored.file, name));
  if (!spec.format.is_fp8()) return;
  if (!is_fp8) {
    faults.push_back(fmt::format(
        "{}: tensor {} is in {}, and by quantization_config of config.json it is in FP8: a module that is "
        "not belongs in its modules_to_not_convert (of compressed-tensors: ignore)",
        stored.file, name, name_of(stored.dtype)));
    return;
  }
  const StoredTensor* const scales = checkpoint.find(spec.scales.name);
  if (!scales) {
    faults.push_back(
        fmt::format("{}: tensor {} is in FP8 and its scales, tensor {}, are missing from the "
                    "checkpoint",
                    stored.file, name, spec.scales.name));
    return;
  }
  if (!is_shape(scales->shape, spec.scales.shape) || scales->dtype == DType::e4m3) {
    faults.push_back(fmt::format(
        "{}: tensor {} has shape [{}] of {}, and the scales of {} must be [{}] of bfloat16 or float32",
        scales->file, spec.scales.name, fmt::join(scales->shape, ", "), name_of(scales->dtype), name,
        fmt::join(spec.scales.shape, ", ")));
    return;
  }
  for (int64_t i = 0; i < count_of(scales->shape); ++i) {
    const float scale = load_float(scales->data, scales->dtype, i);
    if (std::isfinite(scale) && scale > 0) continue;
    faults.push_back(
        fmt::format("{}: tensor {} has the scale {} (value {} of it): scales are finite and more "
                    "than 0",
                    scales->file, spec.scales.name, scale, i + 1));
    return;
  }
}

std::string why_not_read(std::string_view name) {
  for (const std::string_view scale : {".input_scale", ".activation_scale"})
    if (name.ends_with(scale)) return ": activations with scales of their own are not supported";
  return name.ends_with("_scale_inv") || name.ends_with("_scale")
             ? ", whose quantization_config says which matrices have scales"
             : "";
}

void refuse_nan(const HostMatrix& part, const std::string& name) {
  if (!part.data || part.dtype != DType::e4m3) return;
  const auto* const bytes = static_cast<const uint8_t*>(part.data);
  std::atomic<int64_t> row_with_nan = -1;
#pragma omp parallel for schedule(static)
  for (int64_t row = 0; row < part.rows; ++row)
    if (has_nan(bytes + row * part.row_stride, part.cols)) row_with_nan = row;
  if (row_with_nan >= 0)
    throw BadInput(fmt::format("tensor {} has a NaN among its FP8 numbers (row {} of this rank's part)", name,
                               row_with_nan.load()));
}

}  // namespace moerun
