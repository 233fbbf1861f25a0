#include "model/tensor_spec.h"

#include <utility>

#include "model/families.h"
#include "model/quantization.h"
#include "model/shard.h"

namespace moerun {

TensorPart part_of_rank(const TensorSpec& spec, const ModelConfig& config, const ModelShard& shard) {
  TensorPart part{.row1 = spec.rows, .col1 = spec.cols};
  // A vector is cut along its one dimension.
  const auto cut = [&](int64_t first_head, int64_t num_heads, bool columns) {
    const int64_t begin = first_head * config.head_dim, end = begin + num_heads * config.head_dim;
    (columns ? part.col0 : part.row0) = begin;
    (columns ? part.col1 : part.row1) = end;
  };
  const auto cut_evenly = [&](bool columns) {
    const int64_t share = (columns ? spec.cols : spec.rows) / shard.tensor;
    (columns ? part.col0 : part.row0) = share * shard.tensor_rank;
    (columns ? part.col1 : part.row1) = share * (shard.tensor_rank + 1);
  };
  const bool is_vector = spec.stored.front().shape.size() == 1;
  switch (spec.cut) {
    case Cut::whole:
      break;
    case Cut::query_rows:
      cut(shard.first_head(config), shard.num_heads(config), is_vector);
      break;
    case Cut::key_value_rows:
      cut(shard.first_kv_head(config), shard.num_kv_heads(config), is_vector);
      break;
    case Cut::query_columns:
      cut(shard.first_head(config), shard.num_heads(config), true);
      break;
    case Cut::even_rows:
      cut_evenly(is_vector);
      break;
    case Cut::even_columns:
      cut_evenly(true);
      break;
    case Cut::expert:
      if (!shard.is_home(spec.place.expert)) part.row1 = 0;
      break;
  }
  return part;
}

std::vector<TensorSpec> tensors_of(const ModelConfig& config, DType dtype) {
  TensorList list({dtype}, config);
  config.family->tensors(config, list);
  return list.take();
}

TensorSpec& TensorList::add(const std::string& name, const std::vector<int64_t>& shape, Cut cut,
                            Place place) {
  return tensors_.emplace_back(TensorSpec{.drawn_as = name,
                                          .stored = {{name, shape}},
                                          .rows = shape.size() == 1 ? 1 : shape.front(),
                                          .cols = shape.back(),
                                          .cut = cut,
                                          .place = place,
                                          .format = format_});
}

TensorSpec& TensorList::matrix(const std::string& name, int64_t rows, int64_t cols, Cut cut, Place place) {
  TensorSpec& spec = add(name, {rows, cols}, cut, place);
  quantise(config_.quantization, spec);
  return spec;
}

TensorSpec& TensorList::norm(const std::string& name, int64_t cols, Place place) {
  TensorSpec& spec = vector(name, cols, Cut::whole, place);
  if (config_.zero_centred_norms) {
    spec.added = 1;
    spec.format.dtype = DType::float32;  // 16 bits do not hold the sum
  }
  return spec;
}

TensorSpec& TensorList::rows_of(const std::string& name, int64_t whole_rows, const RowRange& rows, Cut cut,
                                Place place) {
  const int64_t cols = rows.cols;
  TensorSpec& spec = matrix(name, rows.count, cols, cut, place);
  spec.stored.front() = {name, {whole_rows, cols}, rows.first * cols};
  if (!spec.format.is_fp8()) return spec;
  spec.scales.row0 = rows.first;
  spec.scales.shape.front() = (whole_rows + spec.scales.block_rows - 1) / spec.scales.block_rows;
  return spec;
}

TensorSpec& TensorList::vector(const std::string& name, int64_t cols, Cut cut, Place place) {
  return add(name, {cols}, cut, place);
}

}  // namespace moerun
