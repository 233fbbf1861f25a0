#include "io/hdf5.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <system_error>

#include "io/durable_file.h"
#include "moerun/error.h"

namespace moerun::hdf5 {
namespace {

/// At exit HDF5 would close what is open, and crash where that cannot be written: owners close, or leave it.
/// It listens only before any other call to it, whoever makes that one.
const bool kNothingAtExit = H5dont_atexit() >= 0;

/// HDF5 prints its error stack to stderr unless told not to; the messages here carry what it says.
void silence() {
  if (!kNothingAtExit) throw Error("HDF5 was started before it could be told to do nothing at exit");
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

/// The innermost reason of the last failure: the most specific one.
std::string reason() {
  std::string text;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned n, const H5E_error2_t* error, void* out) -> herr_t {
        if (n == 0) *static_cast<std::string*>(out) = error->desc ? error->desc : "";
        return 0;
      },
      &text);
  return text.empty() ? "no reason given" : text;
}

/// The system's own error in HDF5's reason ("..., errno = 28, error message = ..."); 0: none.
int os_error_in(const std::string& why) {
  constexpr std::string_view kErrno = "errno = ";
  const size_t begin = why.find(kErrno);
  return begin == std::string::npos ? 0 : std::atoi(why.c_str() + begin + kErrno.size());
}

std::string newer_hint() {
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return fmt::format(
      " (it was written by a newer HDF5 than the {}.{}.{} that reads it here, or is damaged: write it with "
      "h5py's "
      "libver=('earliest', 'v110'), or repack it there: h5repack --low=0 --high=2 OLD.h5 NEW.h5)",
      major, minor, release);
}

[[noreturn]] void fail(const std::string& what) {
  const std::string why = reason();
  const int os_error = os_error_in(why);
  // "bad version number for layout message", "bad superblock version number"
  const bool newer = why.find("version number") != std::string::npos;
  if (os_error == 0) throw Error(fmt::format("{}: HDF5 says: {}{}", what, why, newer ? newer_hint() : ""));
  const bool disk = os_error == ENOSPC || os_error == EDQUOT || os_error == EFBIG || os_error == EIO ||
                    os_error == EROFS || os_error == ESTALE || os_error == EINTR;
  throw Error(fmt::format("{}: {}", what, std::generic_category().message(os_error)),
              disk ? ExitCode::stopped : ExitCode::fault);
}

Handle checked(hid_t id, Handle::Close close, const std::string& what) {
  if (id < 0) fail(what);
  return {id, close};
}

/// An attribute of one value: HDF5 writes as many as it has to where one is to be read.
Handle open_single_attribute(hid_t object, const std::string& name, const std::string& what) {
  Handle attribute = checked(H5Aopen(object, name.c_str(), H5P_DEFAULT), H5Aclose, what);
  const Handle space = checked(H5Aget_space(attribute.get()), H5Sclose, what);
  if (H5Sget_simple_extent_npoints(space.get()) != 1) throw Error(what + ": it is not one value");
  return attribute;
}

void check(herr_t status, const std::string& what) {
  if (status < 0) fail(what);
}

void close_handle(Handle& handle, const std::string& name) {
  if (!handle.reset()) fail(fmt::format("{} cannot be written and closed", name));
}

Handle string_type(H5T_cset_t charset) {
  const std::string what = "HDF5's type of strings cannot be made";
  Handle type = checked(H5Tcopy(H5T_C_S1), H5Tclose, what);
  check(H5Tset_size(type.get(), H5T_VARIABLE), what);
  check(H5Tset_cset(type.get(), charset), what);
  return type;
}

Handle intermediate_groups() {
  const std::string what = "HDF5's list of properties cannot be made";
  Handle list = checked(H5Pcreate(H5P_LINK_CREATE), H5Pclose, what);
  check(H5Pset_create_intermediate_group(list.get(), 1), what);
  return list;
}

/// One chunk must fit the cache, or each read of a part of it unpacks the whole.
size_t cache_bytes(hid_t dataset, hid_t type) {
  const Handle created(H5Dget_create_plist(dataset), H5Pclose);
  if (H5Pget_layout(created.get()) != H5D_CHUNKED) return 0;
  std::vector<hsize_t> chunk(H5S_MAX_RANK);
  const int rank = H5Pget_chunk(created.get(), H5S_MAX_RANK, chunk.data());
  return std::accumulate(chunk.begin(), chunk.begin() + std::max(rank, 0), H5Tget_size(type),
                         std::multiplies<size_t>());
}

}  // namespace

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

// --- Dataset ---

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
  const hsize_t total = num_values;
  const Handle memory_space = checked(H5Screate_simple(1, &total, nullptr), H5Sclose, what);
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

// --- Group ---

bool Group::has(std::string_view path) const {
  // H5Lexists wants every part on the way to exist.
  for (size_t end = 0; end != std::string_view::npos;) {
    end = path.find('/', end + 1);
    const std::string part(path.substr(0, end));
    if (part == "/") continue;
    const htri_t link = H5Lexists(id_.get(), part.c_str(), H5P_DEFAULT);
    if (link < 0) fail(fmt::format("{}:{} cannot be looked up", name_, part));
    if (link == 0) return false;
  }
  return true;
}

Group Group::group(const std::string& path) const {
  std::string name = fmt::format("{}:{}", name_, path);
  Handle id = checked(H5Gopen2(id_.get(), path.c_str(), H5P_DEFAULT), H5Gclose,
                      fmt::format("{} cannot be opened", name));
  return {std::move(id), std::move(name)};
}

Dataset Group::dataset(const std::string& path, hid_t access) const {
  const std::string name = fmt::format("{}:{}", name_, path);
  const std::string what = fmt::format("{} cannot be opened", name);
  Handle id = checked(H5Dopen2(id_.get(), path.c_str(), access), H5Dclose, what);
  const Handle type(H5Dget_type(id.get()), H5Tclose);
  constexpr size_t kDefaultCache = 1 << 20, kMostCache = 512 << 20;
  if (const size_t bytes = cache_bytes(id.get(), type.get()); bytes > kDefaultCache && bytes <= kMostCache) {
    close_handle(id, name);
    const Handle cached(access == H5P_DEFAULT ? H5Pcreate(H5P_DATASET_ACCESS) : H5Pcopy(access), H5Pclose);
    H5Pset_chunk_cache(cached.get(), 521, bytes, H5D_CHUNK_CACHE_W0_DEFAULT);
    id = checked(H5Dopen2(id_.get(), path.c_str(), cached.get()), H5Dclose, what);
  }
  return {std::move(id), name};
}

Group Group::create_group(const std::string& path) {
  std::string name = fmt::format("{}:{}", name_, path);
  Handle id =
      checked(H5Gcreate2(id_.get(), path.c_str(), intermediate_groups().get(), H5P_DEFAULT, H5P_DEFAULT),
              H5Gclose, fmt::format("{} cannot be made", name));
  return {std::move(id), std::move(name)};
}

Dataset Group::create_dataset(const std::string& path, hid_t type, const Packing& packing,
                              const std::vector<uint64_t>& row) {
  std::string name = fmt::format("{}:{}", name_, path);
  const std::string what = fmt::format("{} cannot be made", name);
  std::vector<hsize_t> dims{0}, most{H5S_UNLIMITED}, chunk{packing.chunk_rows};
  for (std::vector<hsize_t>* shape : {&dims, &most, &chunk})
    shape->insert(shape->end(), row.begin(), row.end());
  const Handle space =
      checked(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), most.data()), H5Sclose, what);
  const Handle list = checked(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, what);
  check(H5Pset_chunk(list.get(), static_cast<int>(chunk.size()), chunk.data()), what);
  check(H5Pset_obj_track_times(list.get(), false), what);
  if (packing.shuffle) check(H5Pset_shuffle(list.get()), what);
  if (packing.gzip > 0) check(H5Pset_deflate(list.get(), packing.gzip), what);
  Handle id = checked(H5Dcreate2(id_.get(), path.c_str(), type, space.get(), intermediate_groups().get(),
                                 list.get(), H5P_DEFAULT),
                      H5Dclose, what);
  return {std::move(id), std::move(name)};
}

Dataset Group::create_string_dataset(const std::string& path, const Packing& packing) {
  return create_dataset(path, string_type(H5T_CSET_UTF8).get(), packing, {});
}

Dataset Group::create_fixed_string_dataset(const std::string& path, uint64_t width, const Packing& packing) {
  const std::string what = fmt::format("{}:{} cannot be made", name_, path);
  const Handle type = checked(H5Tcopy(H5T_C_S1), H5Tclose, what);
  check(H5Tset_size(type.get(), width), what);
  check(H5Tset_strpad(type.get(), H5T_STR_NULLPAD), what);
  return create_dataset(path, type.get(), packing, {});
}

void Group::write_attribute(const std::string& name, hid_t type, const void* value) {
  const std::string what = fmt::format("attribute {} of {} cannot be written", name, name_);
  const Handle space = checked(H5Screate(H5S_SCALAR), H5Sclose, what);
  Handle attribute = checked(H5Acreate2(id_.get(), name.c_str(), type, space.get(), H5P_DEFAULT, H5P_DEFAULT),
                             H5Aclose, what);
  check(H5Awrite(attribute.get(), type, value), what);
  close_handle(attribute, what);
}

void Group::set_attribute(const std::string& name, const std::string& value) {
  const char* text = value.c_str();
  write_attribute(name, string_type(H5T_CSET_UTF8).get(), static_cast<const void*>(&text));
}

std::optional<std::string> Group::string_attribute(const std::string& name) const {
  if (H5Aexists(id_.get(), name.c_str()) <= 0) return std::nullopt;
  const std::string what = fmt::format("attribute {} of {} cannot be read", name, name_);
  const Handle attribute = open_single_attribute(id_.get(), name, what);
  const Handle file_type(H5Aget_type(attribute.get()), H5Tclose);
  if (H5Tis_variable_str(file_type.get()) <= 0) throw Error(what + ": it is no string of variable length");
  const Handle type = string_type(H5Tget_cset(file_type.get()));
  char* text = nullptr;
  check(H5Aread(attribute.get(), type.get(), static_cast<void*>(&text)), what);
  std::string value = text ? text : "";
  H5free_memory(text);
  return value;
}

std::optional<uint64_t> Group::number_attribute(const std::string& name) const {
  if (H5Aexists(id_.get(), name.c_str()) <= 0) return std::nullopt;
  const std::string what = fmt::format("attribute {} of {} cannot be read", name, name_);
  const Handle attribute = open_single_attribute(id_.get(), name, what);
  uint64_t value = 0;
  check(H5Aread(attribute.get(), H5T_NATIVE_UINT64, &value), what);
  return value;
}

std::vector<std::string> Group::children() const {
  std::vector<std::string> names;
  const auto visit = [](hid_t, const char* name, const H5L_info_t*, void* out) -> herr_t {
    static_cast<std::vector<std::string>*>(out)->emplace_back(name);
    return 0;
  };
  check(H5Literate(id_.get(), H5_INDEX_NAME, H5_ITER_INC, nullptr, visit, &names),
        fmt::format("{} cannot be read", name_));
  return names;
}

void Group::close() { close_handle(id_, name_); }

// --- File ---

File File::open(const std::string& path) {
  silence();
  return {checked(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose,
                  fmt::format("{} cannot be opened", path)),
          path};
}

File File::create(const std::string& path) {
  silence();
  remove_file(path);
  return {checked(H5Fcreate(path.c_str(), H5F_ACC_EXCL, H5P_DEFAULT, H5P_DEFAULT), H5Fclose,
                  fmt::format("{} cannot be made", path)),
          path};
}

void File::close() {
  check(H5Fflush(id_.get(), H5F_SCOPE_LOCAL), fmt::format("{} cannot be written", name_));
  close_handle(id_, name_);
}

}  // namespace moerun::hdf5
