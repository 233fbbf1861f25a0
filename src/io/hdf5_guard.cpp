#include "io/hdf5_guard.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include "moerun/error.h"

namespace moerun::hdf5 {

namespace {
constexpr const char* kAllow = "set input.allow_external: true to read it, if you trust who wrote this file";
}  // namespace

/// How a dataset is reached: HDF5 asks before it follows a link into another file.
class FileAccess {
 public:
  explicit FileAccess(bool allow_external)
      : allowed_(allow_external), list_(H5Pcreate(H5P_DATASET_ACCESS), H5Pclose) {
    H5Pset_elink_cb(list_.get(), follow, this);
  }
  FileAccess(const FileAccess&) = delete;
  FileAccess& operator=(const FileAccess&) = delete;

  hid_t get() const { return list_.get(); }
  bool allowed() const { return allowed_; }
  void refuse_link(const std::string& name) const {
    if (!target_.empty() && !allowed_)
      throw BadInput(fmt::format("{} is a link into another file, {}: {}", name, target_, kAllow));
  }

 private:
  static herr_t follow(const char* /*parent*/, const char* /*group*/, const char* file,
                       const char* /*object*/, unsigned* /*flags*/, hid_t /*access*/, void* self) {
    auto* access = static_cast<FileAccess*>(self);
    access->target_ = file;
    return access->allowed_ ? 0 : -1;
  }

  bool allowed_;
  std::string target_;  // of the last link into another file
  Handle list_;
};

namespace {

namespace fs = std::filesystem;

constexpr int kMostSources = 8;  // virtual datasets of virtual datasets

/// The product, or UINT64_MAX where it is more.
uint64_t product(const std::vector<uint64_t>& factors) {
  uint64_t all = 1;
  for (const uint64_t factor : factors)
    if (__builtin_mul_overflow(all, factor, &all)) return UINT64_MAX;
  return all;
}

uint64_t bytes_of_file(const fs::path& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode) ? static_cast<uint64_t>(status.st_size)
                                                                       : 0;
}

[[noreturn]] void never_written(const std::string& name) {
  throw BadInput(fmt::format(
      "{} was not written to its end: HDF5 would make up what is missing. Write the file again", name));
}

/// One look at a dataset: its parts, once.
class Check {
 public:
  Check(const File& file, const Dataset& dataset, const FileAccess& access, int depth)
      : file_(file),
        dataset_(dataset),
        access_(access),
        depth_(depth),
        created_(H5Dget_create_plist(dataset.hid()), H5Pclose),
        type_(H5Dget_type(dataset.hid()), H5Tclose),
        name_(dataset.name()) {}

  void run() const {
    if (dataset_.rows() > DatasetLimits::kMostRows)
      throw BadInput(
          fmt::format("{} has {} rows, more than {}", name_, dataset_.rows(), DatasetLimits::kMostRows));
    const size_t bytes = H5Tget_size(type_.get());
    if (bytes == 0 || bytes > DatasetLimits::kMostStringBytes)
      throw BadInput(fmt::format("{} has values of {} bytes, more than {} MiB", name_, bytes,
                                 DatasetLimits::kMostStringBytes >> 20));
    const uint64_t num_values = product(dataset_.shape());
    uint64_t all_bytes = 0;
    if (__builtin_mul_overflow(num_values, static_cast<uint64_t>(bytes), &all_bytes))
      throw BadInput(fmt::format("{} has more bytes than 64 bits can count", name_));
    if (num_values == 0) return;
    switch (H5Pget_layout(created_.get())) {
      case H5D_VIRTUAL:
        return check_virtual(num_values);
      case H5D_CHUNKED:
        return check_chunks(bytes);
      case H5D_CONTIGUOUS:
        return H5Pget_external_count(created_.get()) > 0 ? check_external(all_bytes)
                                                         : check_contiguous(all_bytes);
      default:  // compact: in the header that was read
        return;
    }
  }

 private:
  void check_chunks(size_t value_bytes) const {
    if (const auto missing = missing_filters(dataset_.hid()); !missing.empty())
      throw BadInput(
          fmt::format("{} is packed by the filter {}, which is not there to read it: write it with gzip, or "
                      "repack it where the "
                      "filter is there (h5repack -f GZIP=1 OLD.h5 NEW.h5)",
                      name_, missing[0]));
    std::array<hsize_t, H5S_MAX_RANK> chunk{};
    const auto& shape = dataset_.shape();
    if (H5Pget_chunk(created_.get(), H5S_MAX_RANK, chunk.data()) != static_cast<int>(shape.size()))
      throw BadInput(fmt::format("{} has chunks of another rank than its own", name_));
    std::vector<uint64_t> chunk_sizes{value_bytes}, counts;
    for (size_t i = 0; i < shape.size(); ++i) {
      if (chunk[i] == 0) throw BadInput(fmt::format("{} has chunks of nothing", name_));
      chunk_sizes.push_back(chunk[i]);
      counts.push_back(shape[i] / chunk[i] + (shape[i] % chunk[i] != 0));
    }
    if (product(chunk_sizes) > DatasetLimits::kMostChunkBytes)
      throw BadInput(fmt::format(
          "{} has chunks of more than {} MiB: repack it with smaller ones (h5repack -l CHUNK=65536 "
          "OLD.h5 NEW.h5)",
          name_, DatasetLimits::kMostChunkBytes >> 20));
    hsize_t written = 0;
    const Handle space(H5Dget_space(dataset_.hid()), H5Sclose);
    if (H5Dget_num_chunks(dataset_.hid(), space.get(), &written) < 0 || written < product(counts))
      never_written(name_);
  }

  void check_contiguous(uint64_t bytes) const {
    const haddr_t begin = H5Dget_offset(dataset_.hid());
    if (begin == HADDR_UNDEF || H5Dget_storage_size(dataset_.hid()) < bytes) never_written(name_);
    hsize_t file_bytes = 0;
    const Handle file(H5Iget_file_id(dataset_.hid()), H5Fclose);
    if (H5Fget_filesize(file.get(), &file_bytes) < 0 || begin > file_bytes || bytes > file_bytes - begin)
      throw BadInput(fmt::format("{} reaches beyond the end of its file: it is truncated", name_));
  }

  /// Raw data in other files, one piece after the other.
  void check_external(uint64_t bytes) const {
    uint64_t found = 0;
    const int count = H5Pget_external_count(created_.get());
    for (int i = 0; i < count && found < bytes; ++i) {
      std::array<char, 4096> path{};
      off_t offset = 0;
      hsize_t size = 0;
      if (H5Pget_external(created_.get(), static_cast<unsigned>(i), path.size() - 1, path.data(), &offset,
                          &size) < 0)
        throw BadInput(fmt::format("{}: its list of external files cannot be read", name_));
      if (!access_.allowed())
        throw BadInput(fmt::format("{} has its data in another file, {}: {}", name_, path.data(), kAllow));
      const uint64_t there = bytes_of_file(path.data());
      const auto begin = static_cast<uint64_t>(std::max<off_t>(offset, 0));
      const uint64_t want = std::min<uint64_t>(size, bytes - found);  // H5F_UNLIMITED is the greatest
      if (there < begin || there - begin < want)
        throw BadInput(
            fmt::format("{} has its data in {}, which is not there or too short", name_, path.data()));
      found += want;
    }
    if (found < bytes) never_written(name_);
  }

  static std::string text_of(ssize_t (*get)(hid_t, size_t, char*, size_t), hid_t list, size_t i) {
    std::array<char, 4096> text{};
    if (get(list, i, text.data(), text.size() - 1) < 0) return "";
    return text.data();
  }

  void check_virtual(uint64_t num_values) const {
    size_t count = 0;
    H5Pget_virtual_count(created_.get(), &count);
    uint64_t mapped = 0;
    for (size_t i = 0; i < count; ++i) {
      const std::string path = text_of(H5Pget_virtual_filename, created_.get(), i);
      const std::string source = text_of(H5Pget_virtual_dsetname, created_.get(), i);
      const Handle to(H5Pget_virtual_vspace(created_.get(), i), H5Sclose);
      const Handle from(H5Pget_virtual_srcspace(created_.get(), i), H5Sclose);
      const hssize_t points = H5Sget_select_npoints(to.get());
      if (points < 0 || (path + source).find('%') != std::string::npos)
        throw BadInput(
            fmt::format("{} is virtual with sources without end: write the values themselves (h5py: "
                        "file[name][:])",
                        name_));
      mapped += static_cast<uint64_t>(points);
      check_source(path, source, from.get(), static_cast<uint64_t>(points));
    }
    if (mapped != num_values)
      throw BadInput(
          fmt::format("{} is virtual, and its sources give {} of its {} values", name_, mapped, num_values));
  }

  void check_source(const std::string& path, const std::string& source, hid_t selection,
                    uint64_t points) const {
    const std::string where = fmt::format("{}, source {}:{}", name_, path, source);
    if (path != "." && !access_.allowed())
      throw BadInput(fmt::format("{} is virtual with a source in another file, {}: {}", name_, path, kAllow));
    if (depth_ >= kMostSources) throw BadInput(fmt::format("{}: virtual sources are nested too deep", where));
    // HDF5 gives fill values where a source cannot be opened.
    const fs::path beside = fs::path(file_.name()).parent_path() / path;
    const fs::path found = bytes_of_file(beside) > 0 ? beside : fs::path(path);
    if (path != "." && bytes_of_file(found) == 0)
      throw BadInput(fmt::format("{}: the file is not there", where));
    std::optional<File> other;
    if (path != ".") other.emplace(File::open(found.string()));
    const File& file = other ? *other : file_;
    Handle id(H5Dopen2(file.hid(), source.c_str(), access_.get()), H5Dclose);
    access_.refuse_link(where);
    if (id.get() < 0) throw BadInput(fmt::format("{}: the dataset is not there", where));
    const Dataset dataset(std::move(id), where);
    Check(file, dataset, access_, depth_ + 1).run();
    check_extent(dataset, selection, points, where);
  }

  /// What is selected of a source must lie in it. A selection of all has no extent in the file.
  static void check_extent(const Dataset& source, hid_t selection, uint64_t points,
                           const std::string& where) {
    std::array<hsize_t, H5S_MAX_RANK> begin{}, end{};
    const auto& shape = source.shape();
    bool inside = product(shape) >= points;
    if (inside && H5Sget_select_type(selection) != H5S_SEL_ALL) {
      inside = H5Sget_simple_extent_ndims(selection) == static_cast<int>(shape.size()) &&
               H5Sget_select_bounds(selection, begin.data(), end.data()) >= 0;
      for (size_t i = 0; inside && i < shape.size(); ++i) inside = end[i] < shape[i];
    }
    if (!inside) throw BadInput(fmt::format("{}: the dataset is smaller than what is taken from it", where));
  }

  const File& file_;
  const Dataset& dataset_;
  const FileAccess& access_;
  int depth_;
  Handle created_, type_;
  std::string name_;
};

}  // namespace

CheckedFile::CheckedFile(const std::string& path, bool allow_external)
    : access_(std::make_unique<FileAccess>(allow_external)), file_(File::open(path)) {}

CheckedFile::~CheckedFile() = default;

bool CheckedFile::has(const std::string& path) const {
  for (size_t end = 0; end != std::string::npos;) {
    end = path.find('/', end + 1);
    const std::string part = path.substr(0, end);
    const std::string name = fmt::format("{}:/{}", file_.name(), part);
    const htri_t link = H5Lexists(file_.hid(), part.c_str(), access_->get());
    access_->refuse_link(name);
    if (link < 0)  // damage is no absence
      throw BadInput(fmt::format("{} cannot be looked up: HDF5 finds damage there", name));
    if (link == 0) return false;
    const htri_t object = H5Oexists_by_name(file_.hid(), part.c_str(), access_->get());
    access_->refuse_link(name);
    if (object <= 0) throw BadInput(fmt::format("{} is a link that leads nowhere", name));
  }
  return true;
}

Dataset CheckedFile::dataset(const std::string& path) const {
  Dataset dataset = file_.dataset("/" + path, access_->get());
  Check(file_, dataset, *access_, 0).run();
  return dataset;
}

}  // namespace moerun::hdf5
