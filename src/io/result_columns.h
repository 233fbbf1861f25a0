#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <fmt/format.h>

#include "io/hdf5.h"
#include "io/result_hdf5.h"
#include "moerun/error.h"
#include "moerun/record.h"
#include "moerun/routed_shape.h"

namespace moerun {

// The kinds of columns that an output has. Each is written a chunk or a batch at a time, and closing it says
// what was written, for reading it back. Thread contract: the coordinator thread.

inline constexpr uint64_t kChunkValues = 1 << 16;

/// gzip's higher levels cost many times the time for a few percent on such columns.
inline hdf5::Packing packing(uint64_t chunk_rows) {
  return {.chunk_rows = std::max<uint64_t>(chunk_rows, 1), .gzip = 1, .shuffle = true};
}

/// A dataset of numbers that is written whole chunks at a time, so that each is packed once.
template <hdf5::Number T>
class Column {
 public:
  Column(hdf5::Group& group, const std::string& name, uint64_t chunk_rows,
         const std::vector<uint64_t>& row = {})
      : Column(group, name, packing(chunk_rows), row) {}
  Column(hdf5::Group& group, const std::string& name, const hdf5::Packing& packed,
         const std::vector<uint64_t>& row)
      : name_(name),
        dataset_(group.create_dataset<T>(name, packed, row)),
        chunk_values_(packed.chunk_rows * dataset_.row_size()) {}

  void push(T value) {
    buffer_.push_back(value);
    if (buffer_.size() == chunk_values_) flush();
  }
  void push(std::span<const T> values) {
    while (!values.empty()) {
      const size_t count = std::min<size_t>(values.size(), chunk_values_ - buffer_.size());
      buffer_.insert(buffer_.end(), values.begin(), values.begin() + static_cast<ptrdiff_t>(count));
      values = values.subspan(count);
      if (buffer_.size() == chunk_values_) flush();
    }
  }
  void push(uint64_t count, T value) {
    for (uint64_t i = 0; i < count; ++i) push(value);
  }
  ColumnSum close() {
    flush();
    dataset_.close();
    return {.name = name_, .rows = dataset_.rows(), .sha256 = sum_.hex(), .read = read};
  }

 private:
  void flush() {
    dataset_.append(buffer_);
    sum_.update(bytes_of(buffer_));
    buffer_.clear();
  }
  static void read(const hdf5::Dataset& dataset, uint64_t begin, uint64_t count, Sha256& sum) {
    sum.update(bytes_of(dataset.read<T>(begin, count)));
  }
  static std::string_view bytes_of(const std::vector<T>& values) {
    return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
  }

  std::string name_;
  hdf5::Dataset dataset_;
  Sha256 sum_;
  uint64_t chunk_values_;
  std::vector<T> buffer_;
};

void add_strings(Sha256& sum, const auto& values) {
  for (const auto& value : values) {
    const uint64_t bytes = value.size();
    sum.update({reinterpret_cast<const char*>(&bytes), sizeof bytes});
    sum.update(value);
  }
}

inline void read_strings(const hdf5::Dataset& dataset, uint64_t begin, uint64_t count, Sha256& sum) {
  add_strings(sum, dataset.read_strings(begin, count));
}

inline constexpr uint64_t kStringBatch = 8192;

/// A dataset of strings, written a batch at a time.
class StringColumn {
 public:
  StringColumn(hdf5::Group& group, const std::string& name, uint64_t chunk_rows)
      : name_(name), dataset_(group.create_string_dataset(name, packing(chunk_rows))) {}

  /// HDF5's strings end at their first NUL, and so does what is kept of the value.
  void push(const std::string& value) {
    buffer_.push_back(value.substr(0, value.find('\0')));
    if (buffer_.size() == kStringBatch) flush();
  }
  ColumnSum close() {
    flush();
    dataset_.close();
    return {.name = name_, .rows = dataset_.rows(), .sha256 = sum_.hex(), .read = read_strings};
  }

 private:
  void flush() {
    dataset_.append_strings(buffer_);
    add_strings(sum_, buffer_);
    buffer_.clear();
  }

  std::string name_;
  hdf5::Dataset dataset_;
  Sha256 sum_;
  std::vector<std::string> buffer_;
};

class ReasonColumn {
 public:
  ReasonColumn(hdf5::Group& group, uint64_t chunk_rows)
      : dataset_(group.create_fixed_string_dataset(kName, kWidth, packing(chunk_rows))) {}

  void push(FinishReason reason) {
    buffer_.emplace_back(name_of(reason));
    if (buffer_.size() == kStringBatch) flush();
  }
  ColumnSum close() {
    flush();
    dataset_.close();
    return {.name = kName, .rows = dataset_.rows(), .sha256 = sum_.hex(), .read = read_strings};
  }

 private:
  void flush() {
    dataset_.append_fixed_strings(buffer_);
    add_strings(sum_, buffer_);
    buffer_.clear();
  }

  static constexpr const char* kName = "finish_reason";
  static constexpr uint64_t kWidth = 6;  // of "length", the longest
  hdf5::Dataset dataset_;
  Sha256 sum_;
  std::vector<std::string_view> buffer_;
};

/// The experts of each token [layers, experts_per_token]: `name` of uint8 or uint16 by the shape.
class RoutedColumn {
 public:
  RoutedColumn(hdf5::Group& group, const std::string& name, const RoutedShape& shape)
      : token_bytes_(shape.token_bytes()), column_(make(group, name, shape)) {}

  /// Those of some tokens. Throws Error where they are not `num_tokens` of the shape.
  void push(std::span<const uint8_t> routed, uint64_t num_tokens) {
    if (routed.size() != num_tokens * token_bytes_)
      throw Error(
          fmt::format("an answer has {} bytes of routed experts for {} tokens, and {} for each belong",
                      routed.size(), num_tokens, token_bytes_));
    std::visit([&](auto& column) { push_to(column, routed); }, column_);
  }
  ColumnSum close() {
    return std::visit([](auto& column) { return column.close(); }, column_);
  }

 private:
  using Either = std::variant<Column<uint8_t>, Column<uint16_t>>;

  static Either make(hdf5::Group& group, const std::string& name, const RoutedShape& shape) {
    const std::vector<uint64_t> row{shape.layers.size(), static_cast<uint64_t>(shape.experts_per_token)};
    // As they are: of 8 ids among 128 gzip takes an eighth away, at some 15 MB/s.
    const hdf5::Packing plain{
        .chunk_rows = std::max<uint64_t>(kChunkValues / std::max<uint64_t>(shape.ids_of_token(), 1), 1)};
    if (shape.id_bytes() == 1) return Either(std::in_place_index<0>, group, name, plain, row);
    return Either(std::in_place_index<1>, group, name, plain, row);
  }
  static void push_to(Column<uint8_t>& column, std::span<const uint8_t> routed) { column.push(routed); }
  static void push_to(Column<uint16_t>& column, std::span<const uint8_t> routed) {
    std::vector<uint16_t> ids(routed.size() / sizeof(uint16_t));
    if (!ids.empty()) std::memcpy(ids.data(), routed.data(), routed.size());
    column.push(ids);
  }

  size_t token_bytes_;
  Either column_;
};

}  // namespace moerun
