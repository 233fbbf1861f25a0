#pragma once
#include <hdf5.h>

#include <concepts>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moerun::hdf5 {

/// Small owners of HDF5's handles: what this program reads and writes, and no more. Every failure is an Error
/// that names the file and HDF5's own innermost reason (HDF5 prints nothing itself); a disk that is full or
/// fails carries ExitCode::stopped.
///
/// Thread contract: the library is not thread-safe; one thread of the process at a time.

/// An HDF5 identifier that is closed with its owner, which cannot say that it failed: what was written is
/// closed by reset() and its result looked at (Dataset, Group, File: close()).
class Handle {
 public:
  using Close = herr_t (*)(hid_t);

  Handle() = default;
  Handle(hid_t id, Close close) : id_(id), close_(close) {}
  ~Handle() { (void)reset(); }
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, H5I_INVALID_HID)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }

  hid_t get() const { return id_; }
  /// Closes now; false when HDF5 says that it failed.
  [[nodiscard]] bool reset() { return id_ < 0 || close_(std::exchange(id_, H5I_INVALID_HID)) >= 0; }

 private:
  hid_t id_ = H5I_INVALID_HID;
  Close close_ = nullptr;
};

template <class T>
concept Number = std::integral<T> || std::floating_point<T>;

/// The filters of a dataset that this HDF5 library cannot undo, by the names that the file gives them.
std::vector<std::string> missing_filters(hid_t dataset);

/// HDF5's name of a C++ number. Files are written in the machine's own (little-endian) form.
template <Number T>
hid_t native_type() {
  if constexpr (std::is_same_v<T, float>)
    return H5T_NATIVE_FLOAT;
  else if constexpr (std::is_same_v<T, double>)
    return H5T_NATIVE_DOUBLE;
  else if constexpr (sizeof(T) == 1)
    return std::is_signed_v<T> ? H5T_NATIVE_INT8 : H5T_NATIVE_UINT8;
  else if constexpr (sizeof(T) == 2)
    return std::is_signed_v<T> ? H5T_NATIVE_INT16 : H5T_NATIVE_UINT16;
  else if constexpr (sizeof(T) == 4)
    return std::is_signed_v<T> ? H5T_NATIVE_INT32 : H5T_NATIVE_UINT32;
  else
    return std::is_signed_v<T> ? H5T_NATIVE_INT64 : H5T_NATIVE_UINT64;
}

/// How a dataset's chunks are stored. gzip 0: as they are.
struct Packing {
  uint64_t chunk_rows = 1 << 16;
  unsigned gzip = 0;
  bool shuffle = false;
};

/// An array whose first dimension counts rows.
class Dataset {
 public:
  Dataset(Handle id, std::string name);

  const std::string& name() const { return name_; }  ///< "FILE:/path", for messages
  hid_t hid() const { return id_.get(); }            ///< for src/io/hdf5_guard.cpp, which looks closer
  const std::vector<uint64_t>& shape() const { return shape_; }
  uint64_t rows() const { return shape_.empty() ? 0 : shape_[0]; }
  uint64_t row_size() const;  ///< numbers in one row
  bool is_integer() const;
  bool is_unsigned() const;  ///< of integers
  bool is_string() const;
  uint64_t value_bytes() const;  ///< of a number, or a string of fixed length, as the file has it

  /// Reads rows [begin, begin + out.size() / row_size()), converting. HDF5 clips what the type cannot hold.
  template <Number T>
  void read(uint64_t begin, std::span<T> out) const {
    transfer(Direction::read, begin, out.size(), native_type<T>(), out.data());
  }
  template <Number T>
  std::vector<T> read(uint64_t begin, uint64_t num_rows) const {
    std::vector<T> out(num_rows * row_size());
    read<T>(begin, std::span<T>(out));
    return out;
  }
  /// Strings of rows [begin, begin + count): of variable length, or of fixed length without their padding.
  std::vector<std::string> read_strings(uint64_t begin, uint64_t count) const;
  /// The same for as many rows, one at least, as have `most_bytes` in all. `lengths` gets their bytes; a
  /// string of more than `most_one` comes empty. A dataset of one dimension.
  std::vector<std::string> read_some_strings(uint64_t begin, uint64_t count, uint64_t most_bytes,
                                             uint64_t most_one, std::vector<uint64_t>& lengths) const;

  /// Adds whole rows at the end; the dataset was made with create_dataset.
  template <Number T>
  void append(std::span<const T> values) {
    append_rows(values.size(), native_type<T>(), values.data());
  }
  template <Number T>
  void append(const std::vector<T>& values) {
    append(std::span<const T>(values));
  }
  void append_strings(std::span<const std::string> values);
  /// As append_strings, for a dataset of create_fixed_string_dataset; what is longer than its width is cut.
  void append_fixed_strings(std::span<const std::string_view> values);
  /// Writes out what is buffered and closes.
  void close();

 private:
  enum class Direction { read, write };
  void transfer(Direction direction, uint64_t begin, uint64_t num_values, hid_t type, void* data,
                hid_t properties = H5P_DEFAULT) const;
  void append_rows(uint64_t num_values, hid_t type, const void* data);

  Handle id_;
  std::string name_;
  std::vector<uint64_t> shape_;
};

/// A group, or a file as its root group. Paths are relative to it and may have several parts.
class Group {
 public:
  Group(Handle id, std::string name) : id_(std::move(id)), name_(std::move(name)) {}

  const std::string& name() const { return name_; }
  bool has(std::string_view path) const;
  Group group(const std::string& path) const;
  /// `access`: a list of access properties.
  Dataset dataset(const std::string& path, hid_t access = H5P_DEFAULT) const;
  hid_t hid() const { return id_.get(); }

  /// Makes groups and datasets; the groups on the way are made too. Nothing of the time goes into the file:
  /// equal contents are equal bytes.
  Group create_group(const std::string& path);
  /// An empty dataset [0, row...] that grows by append().
  template <Number T>
  Dataset create_dataset(const std::string& path, const Packing& packing,
                         const std::vector<uint64_t>& row = {}) {
    return create_dataset(path, native_type<T>(), packing, row);
  }
  /// An empty dataset [0] of UTF-8 strings of variable length.
  Dataset create_string_dataset(const std::string& path, const Packing& packing);

  /// An empty dataset [0] of ASCII strings of `width` bytes, padded with NUL.
  Dataset create_fixed_string_dataset(const std::string& path, uint64_t width, const Packing& packing);

  /// Attributes: UTF-8 strings of variable length and numbers.
  void set_attribute(const std::string& name, const std::string& value);
  template <Number T>
  void set_attribute(const std::string& name, T value) {
    write_attribute(name, native_type<T>(), &value);
  }
  std::optional<std::string> string_attribute(const std::string& name) const;  ///< none: no such attribute
  std::optional<uint64_t> number_attribute(const std::string& name) const;     ///< none: no such attribute
  /// Names of the groups and datasets right below, sorted.
  std::vector<std::string> children() const;

  void close();

 protected:
  Dataset create_dataset(const std::string& path, hid_t type, const Packing& packing,
                         const std::vector<uint64_t>& row);
  void write_attribute(const std::string& name, hid_t type, const void* value);

  Handle id_;
  std::string name_;
};

class File : public Group {
 public:
  /// For reading. Throws when it is absent, no HDF5, or truncated.
  static File open(const std::string& path);
  /// Replaces what is there: a link too, whatever it leads to.
  static File create(const std::string& path);
  /// Writes out what is buffered and closes. Every group and dataset of the file must be gone. The destructor
  /// does the same, and cannot say that it failed.
  void close();

 private:
  File(Handle id, std::string path) : Group(std::move(id), std::move(path)) {}
};

}  // namespace moerun::hdf5
