#include "io/hdf5.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "io/durable_file.h"
#include "io/hdf5_calls.h"
#include "moerun/error.h"

namespace moerun::hdf5 {
namespace {

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
