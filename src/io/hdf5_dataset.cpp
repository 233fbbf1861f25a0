#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <numeric>

#include "io/hdf5.h"
#include "io/hdf5_calls.h"
#include "moerun/error.h"

namespace moerun::hdf5 {

std::vector<std::string> missing_filters(hid_t dataset) {
  std::vector<std::string> missing;
  const Handle created(H5Dget_create_plist(dataset), H5Pclose);
  const int count = H5Pget_nfilters(created.get());
  for (int i = 0; i < count; ++i) {
    unsigned flags = 0, config = 0;
    size_t num_values = 0;
    std::array<char, 64> name{};
    const H5Z_filter_t id = H5Pget_filter2(created.get(), static_cast<unsigned>(i), &flags, &num_values,
                                           nullptr, name.size(), name.data(), &config);
    if (id < 0 || H5Zfilter_avail(id) > 0) continue;
    name.back() = '\0';
    std::string text(name.data());
    std::erase_if(text, [](char c) { return c < 0x20 || c > 0x7e; });
    missing.push_back(text.empty() ? fmt::format("number {}", id) : fmt::format("{} (number {})", text, id));
  }
  return missing;
}

Dataset::Dataset(Handle id, std::string name) : id_(std::move(id)), name_(std::move(name)) {
  const Handle space = checked(H5Dget_space(id_.get()), H5Sclose, name_);
  const int rank = H5Sget_simple_extent_ndims(space.get());
  if (rank < 0) fail(name_);
  shape_.resize(static_cast<size_t>(rank));
  std::vector<hsize_t> dims(shape_.size());
  H5Sget_simple_extent_dims(space.get(), dims.data(), nullptr);
  std::copy(dims.begin(), dims.end(), shape_.begin());
}

uint64_t Dataset::row_size() const {
  return std::accumulate(shape_.begin() + (shape_.empty() ? 0 : 1), shape_.end(), uint64_t{1},
                         std::multiplies<uint64_t>());
}

bool Dataset::is_integer() const {
  const Handle type(H5Dget_type(id_.get()), H5Tclose);
  return H5Tget_class(type.get()) == H5T_INTEGER;
}

bool Dataset::is_unsigned() const {
  const Handle type(H5Dget_type(id_.get()), H5Tclose);
  return H5Tget_class(type.get()) == H5T_INTEGER && H5Tget_sign(type.get()) == H5T_SGN_NONE;
}

bool Dataset::is_string() const {
  const Handle type(H5Dget_type(id_.get()), H5Tclose);
  return H5Tget_class(type.get()) == H5T_STRING;
}

void Dataset::transfer(Direction direction, uint64_t begin, uint64_t num_values, hid_t type, void* data,
                       hid_t properties) const {
  if (num_values == 0) return;
  const bool reads = direction == Direction::read;
  const std::string what = fmt::format("{} cannot be {}", name_, reads ? "read" : "written");
  const Handle file_space = checked(H5Dget_space(id_.get()), H5Sclose, what);
  std::vector<hsize_t> start(shape_.size(), 0), count(shape_.begin(), shape_.end());
  start.at(0) = begin;
  count.at(0) = num_values / row_size();
  check(H5Sselect_hyperslab(file_space.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr),
        what);
  // Of the same shape: between unlike ones HDF5 walks value by value, tens of times slower.
  const Handle memory_space =
      checked(H5Screate_simple(static_cast<int>(count.size()), count.data(), nullptr), H5Sclose, what);
  check(reads ? H5Dread(id_.get(), type, memory_space.get(), file_space.get(), properties, data)
              : H5Dwrite(id_.get(), type, memory_space.get(), file_space.get(), properties, data),
        what);
}

uint64_t Dataset::value_bytes() const {
  const Handle type(H5Dget_type(id_.get()), H5Tclose);
  return H5Tget_size(type.get());
}

namespace {

/// Memory for strings of variable length, up to a limit: HDF5 asks for each. What it took before a failure
/// would otherwise be lost.
class StringRoom {
 public:
  explicit StringRoom(uint64_t most) : left_(most), list_(H5Pcreate(H5P_DATASET_XFER), H5Pclose) {
    H5Pset_vlen_mem_manager(list_.get(), allocate, this, release, this);
  }
  StringRoom(const StringRoom&) = delete;
  StringRoom& operator=(const StringRoom&) = delete;

  hid_t list() const { return list_.get(); }
  bool full() const { return full_; }

 private:
  static void* allocate(size_t bytes, void* self) {
    auto& room = *static_cast<StringRoom*>(self);
    room.full_ = room.full_ || bytes > room.left_;
    if (room.full_) return nullptr;
    room.left_ -= bytes;
    return room.taken_.emplace_back(new char[std::max<size_t>(bytes, 1)]).get();
  }
  static void release(void* /*memory*/, void* /*self*/) {}  // with the room

  uint64_t left_;
  bool full_ = false;
  std::vector<std::unique_ptr<char[]>> taken_;
  Handle list_;
};

}  // namespace

std::vector<std::string> Dataset::read_some_strings(uint64_t begin, uint64_t count, uint64_t most_bytes,
                                                    uint64_t most_one, std::vector<uint64_t>& lengths) const {
  const Handle file_type(H5Dget_type(id_.get()), H5Tclose);
  std::vector<std::string> out;
  if (H5Tis_variable_str(file_type.get()) <= 0) {
    out = read_strings(begin, std::clamp<uint64_t>(most_bytes / value_bytes(), 1, count));
    for (const std::string& text : out) lengths.push_back(text.size());
    return out;
  }
  const Handle type = string_type(H5Tget_cset(file_type.get()));
  for (uint64_t rows = count;; rows = (rows + 1) / 2) {
    StringRoom room(rows == 1 ? most_one + 1 : most_bytes);  // and its NUL
    std::vector<char*> raw(rows, nullptr);
    try {
      transfer(Direction::read, begin, rows, type.get(), static_cast<void*>(raw.data()), room.list());
    } catch (const Error&) {
      if (!room.full()) throw;
      if (rows > 1) continue;
      lengths.push_back(most_one + 1);
      return {""};
    }
    for (const char* text : raw) {
      out.emplace_back(text ? text : "");
      lengths.push_back(out.back().size());
    }
    return out;
  }
}

void Dataset::append_rows(uint64_t num_values, hid_t type, const void* data) {
  if (num_values == 0) return;
  if (num_values % row_size() != 0)
    throw Error(fmt::format("{}: {} values are no whole rows of {}", name_, num_values, row_size()));
  const uint64_t begin = shape_.at(0);
  shape_[0] += num_values / row_size();
  const std::vector<hsize_t> dims(shape_.begin(), shape_.end());
  check(H5Dset_extent(id_.get(), dims.data()), fmt::format("{} cannot be written", name_));
  transfer(Direction::write, begin, num_values, type, const_cast<void*>(data));
}

std::vector<std::string> Dataset::read_strings(uint64_t begin, uint64_t count) const {
  const Handle file_type(H5Dget_type(id_.get()), H5Tclose);
  const uint64_t num_values = count * row_size();
  std::vector<std::string> out;
  out.reserve(num_values);
  if (num_values == 0) return out;

  if (H5Tis_variable_str(file_type.get()) > 0) {
    const Handle type = string_type(H5Tget_cset(file_type.get()));
    std::vector<char*> raw(num_values, nullptr);
    transfer(Direction::read, begin, num_values, type.get(), raw.data());
    for (const char* text : raw) out.emplace_back(text ? text : "");
    const hsize_t total = num_values;
    const Handle space(H5Screate_simple(1, &total, nullptr), H5Sclose);
    H5Dvlen_reclaim(type.get(), space.get(), H5P_DEFAULT, static_cast<void*>(raw.data()));
    return out;
  }

  const size_t width = H5Tget_size(file_type.get());
  const H5T_str_t padding = H5Tget_strpad(file_type.get());
  std::string raw(num_values * width, '\0');
  transfer(Direction::read, begin, num_values, file_type.get(), raw.data());
  for (uint64_t i = 0; i < num_values; ++i) {
    std::string_view text = std::string_view(raw).substr(i * width, width);
    if (padding == H5T_STR_NULLTERM)
      text = text.substr(0, text.find('\0'));
    else
      text = text.substr(0, text.find_last_not_of(padding == H5T_STR_NULLPAD ? '\0' : ' ') + 1);
    out.emplace_back(text);
  }
  return out;
}

void Dataset::append_strings(std::span<const std::string> values) {
  const Handle type = string_type(H5T_CSET_UTF8);
  std::vector<const char*> raw;
  raw.reserve(values.size());
  for (const std::string& value : values) raw.push_back(value.c_str());
  append_rows(raw.size(), type.get(), static_cast<const void*>(raw.data()));
}

void Dataset::append_fixed_strings(std::span<const std::string_view> values) {
  const Handle type(H5Dget_type(id_.get()), H5Tclose);
  const size_t width = H5Tget_size(type.get());
  std::string raw(values.size() * width, '\0');
  for (size_t i = 0; i < values.size(); ++i) values[i].copy(raw.data() + i * width, width);
  append_rows(values.size(), type.get(), raw.data());
}

void Dataset::close() {
  check(H5Dflush(id_.get()), fmt::format("{} cannot be written", name_));
  close_handle(id_, name_);
}

}  // namespace moerun::hdf5
