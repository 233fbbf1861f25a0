#include <hdf5.h>

#include <array>

#include "io/hdf5_child.h"
#include "tests/fuzz/harness.h"

// HDF5 files that the library itself wrote, with whatever the bytes say in them: so that the reader is
// reached behind the library's own checks, in this process, where its coverage is seen. Damaged files are
// read_hdf5's.
namespace moerun::fuzz {

namespace {

constexpr hsize_t kFewValues = 64;  // what is written out of the bytes
constexpr size_t kMostWritten = size_t{64} << 20;

/// Closes what it is given, in the reverse order.
class Handles {
 public:
  Handles() = default;
  ~Handles() {
    for (auto at = open_.rbegin(); at != open_.rend(); ++at) at->second(at->first);
  }
  Handles(const Handles&) = delete;
  Handles& operator=(const Handles&) = delete;
  hid_t operator()(hid_t id, herr_t (*close)(hid_t)) {
    if (id >= 0) open_.emplace_back(id, close);
    return id;
  }

 private:
  std::vector<std::pair<hid_t, herr_t (*)(hid_t)>> open_;
};

hid_t text_type(Handles& handles, size_t size, bool utf8) {
  const hid_t type = handles(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type, size);
  H5Tset_cset(type, utf8 ? H5T_CSET_UTF8 : H5T_CSET_ASCII);
  return type;
}

hid_t integer_type(Handles& handles, std::string_view& bytes) {
  const std::array types = {H5T_STD_I8LE,  H5T_STD_U8LE,  H5T_STD_I16BE, H5T_STD_U16LE, H5T_STD_I32LE,
                            H5T_STD_U32BE, H5T_STD_I64LE, H5T_STD_U64LE, H5T_STD_I64BE, H5T_STD_U64BE};
  const hid_t type = handles(H5Tcopy(types[take_byte(bytes) % types.size()]), H5Tclose);
  if (take_byte(bytes) % 8 == 0) H5Tset_size(type, 1 + take_byte(bytes) % 24);  // of 3 bytes, of 17
  if (take_byte(bytes) % 8 == 0) H5Tset_precision(type, 1 + take_byte(bytes));
  return type;
}

hid_t odd_type(Handles& handles, std::string_view& bytes) {
  const hsize_t three = 3;
  switch (take_byte(bytes) % 6) {
    case 0:
      return H5T_NATIVE_DOUBLE;
    case 1:
      return H5T_STD_REF_OBJ;
    case 2: {
      const hid_t type = handles(H5Tcreate(H5T_COMPOUND, 16), H5Tclose);
      H5Tinsert(type, "a", 0, H5T_NATIVE_INT64);
      H5Tinsert(type, "b", 8, H5T_NATIVE_DOUBLE);
      return type;
    }
    case 3:
      return handles(H5Tarray_create2(H5T_NATIVE_INT32, 1, &three), H5Tclose);
    case 4:
      return handles(H5Tvlen_create(H5T_NATIVE_INT32), H5Tclose);
    default: {
      const hid_t type = handles(H5Tenum_create(H5T_NATIVE_INT8), H5Tclose);
      const signed char one = 1;
      H5Tenum_insert(type, "one", &one);
      return type;
    }
  }
}

/// The extent: small ones, which are written, and ones beyond any machine.
std::vector<hsize_t> take_shape(std::string_view& bytes, hsize_t usual) {
  const std::array<hsize_t, 8> large = {
      1 << 16,          1 << 20,          hsize_t{1} << 32, hsize_t{1} << 40,
      hsize_t{1} << 41, hsize_t{1} << 62, hsize_t{1} << 63, 4097};
  const unsigned rank = take_byte(bytes);
  std::vector<hsize_t> shape(rank % 8 == 7 ? 0 : rank % 8 == 6 ? 2 : 1, usual);
  for (hsize_t& size : shape) {
    const unsigned how = take_byte(bytes);
    if (how % 16 == 15) size = large[take_byte(bytes) % large.size()];
    if (how % 16 == 14) size = take_byte(bytes) % kFewValues;
  }
  return shape;
}

/// How it lies in the file; H5P_DEFAULT where HDF5 says no.
hid_t take_layout(Handles& handles, std::string_view& bytes, const std::vector<hsize_t>& shape) {
  const hid_t list = handles(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  const unsigned how = take_byte(bytes);
  if (how % 4 == 1) H5Pset_layout(list, H5D_COMPACT);
  if (how % 4 == 2 && !shape.empty()) {
    std::vector<hsize_t> chunk(shape);
    for (hsize_t& size : chunk) size = 1 + take_byte(bytes) * (how & 64 ? hsize_t{1} << 24 : 1);
    H5Pset_chunk(list, static_cast<int>(chunk.size()), chunk.data());
    if (how & 8) H5Pset_shuffle(list);
    if (how & 16) H5Pset_deflate(list, 1);
    if (how & 32) H5Pset_fletcher32(list);
  }
  if (how % 4 == 3) H5Pset_external(list, "/dev/null", 0, H5F_UNLIMITED);
  if (how & 128) H5Pset_alloc_time(list, H5D_ALLOC_TIME_LATE);
  return list;
}

void write_texts(Handles& handles, hid_t dataset, size_t count, std::string_view& bytes, bool utf8) {
  std::vector<std::string> texts;
  for (size_t i = 0; i < count; ++i) texts.emplace_back(take_until(bytes, '\0'));
  std::vector<const char*> pointers;
  for (const std::string& text : texts) pointers.push_back(text.size() == 1 ? nullptr : text.c_str());
  H5Dwrite(dataset, text_type(handles, H5T_VARIABLE, utf8), H5S_ALL, H5S_ALL, H5P_DEFAULT, pointers.data());
}

void write_integers(hid_t dataset, size_t count, std::string_view& bytes, bool rising) {
  std::vector<int64_t> values(count);
  for (size_t i = 0; i < count; ++i) {
    values[i] = static_cast<int64_t>(take_byte(bytes));
    if (values[i] > 250) values[i] = (values[i] - 253) << take_byte(bytes) % 63;
    if (rising && i > 0) values[i] = values[i - 1] + values[i] % 8;
  }
  H5Dwrite(dataset, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
}

enum class What { texts, integers, offsets };

/// A dataset that is nearly what it should be.
void make_dataset(hid_t group, const char* name, What what, hsize_t usual, std::string_view& bytes) {
  Handles handles;
  const unsigned how = take_byte(bytes);
  const bool odd = how % 16 == 1, texts = (what == What::texts) != (how % 16 == 2), utf8 = how & 32;
  const bool variable = texts && !(how & 64);
  const std::vector<hsize_t> shape = take_shape(bytes, usual);
  const hid_t space =
      handles(shape.empty() ? H5Screate(how & 16 ? H5S_NULL : H5S_SCALAR)
                            : H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr),
              H5Sclose);
  const size_t width = 1 + take_byte(bytes) * (how & 128 ? size_t{1} << 20 : 1);
  const hid_t type = odd     ? odd_type(handles, bytes)
                     : texts ? text_type(handles, variable ? H5T_VARIABLE : width, utf8)
                             : integer_type(handles, bytes);
  if (H5Tget_size(type) > 4096 && H5Sget_simple_extent_npoints(space) > 64) return;  // a file of that size
  const hid_t list = take_layout(handles, bytes, shape);
  const hid_t dataset =
      handles(H5Dcreate2(group, name, type, space, H5P_DEFAULT, list, H5P_DEFAULT), H5Dclose);
  const hssize_t count = H5Sget_simple_extent_npoints(space);
  if (dataset < 0 || odd || count <= 0 || count > static_cast<hssize_t>(kFewValues)) return;
  if (!texts) return write_integers(dataset, static_cast<size_t>(count), bytes, what == What::offsets);
  if (static_cast<size_t>(count) * width > kMostWritten) return;
  if (variable) return write_texts(handles, dataset, static_cast<size_t>(count), bytes, utf8);
  std::string raw(bytes.substr(0, static_cast<size_t>(count) * width));
  raw.resize(static_cast<size_t>(count) * width);
  H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, raw.data());
}

void make_input(const std::string& path, std::string_view& bytes) {
  Handles handles;
  const hid_t file = handles(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
  const unsigned parts = take_byte(bytes), links = take_byte(bytes);
  const hid_t prompts = handles(H5Gcreate2(file, "prompts", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Gclose);
  const hsize_t rows = take_byte(bytes) % kFewValues, tokens = take_byte(bytes) % kFewValues;
  if (parts & 1) make_dataset(prompts, "text", What::texts, rows, bytes);
  if (parts & 2) make_dataset(prompts, "tokens", What::integers, tokens, bytes);
  if (parts & 4) make_dataset(prompts, "offsets", What::offsets, rows + 1, bytes);
  if (parts & 8) make_dataset(prompts, "id", links & 1 ? What::texts : What::integers, rows, bytes);
  if (parts & 16) make_dataset(prompts, "sampling", What::texts, rows, bytes);
  if (links & 2) H5Lcreate_soft("/prompts/text", prompts, "id", H5P_DEFAULT, H5P_DEFAULT);
  if (links & 4) H5Lcreate_soft("/prompts/tokens", prompts, "offsets", H5P_DEFAULT, H5P_DEFAULT);
  if (links & 8) H5Lcreate_external("elsewhere.h5", "/x", prompts, "text", H5P_DEFAULT, H5P_DEFAULT);
  if (links & 16) H5Lcreate_soft("nowhere", prompts, "tokens", H5P_DEFAULT, H5P_DEFAULT);
}

}  // namespace

/// An HDF5 input as the bytes say, read by the reader itself.
void read_hdf5_shapes(std::string_view bytes) {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  const std::string path = scratch() + "/shapes.h5";
  make_input(path, bytes);
  const Hdf5Input input(path, false, nullptr);
  uint64_t row = 0;
  for (int blocks = 0; row < input.shape().num_rows && blocks < 4; ++blocks) {
    const std::string packed = input.read(row).pack();
    const Hdf5Block block = Hdf5Block::unpack(packed, input.shape());
    check(block.first_row == row && block.num_rows > 0, "a block begins with the row that it was asked for");
    row += block.num_rows;
  }
}

/// A finished output's attributes as the bytes say, one a line: a kind, a name of those that are read, and
/// what it holds.
void look_at_output_attributes(std::string_view bytes) {
  constexpr std::array kNames = {"fingerprint", "program_version", "git_revision",  "layout", "start",
                                 "end",         "num_rows",        "num_row_errors"};
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  const std::string path = scratch() + "/output.h5";
  {
    Handles handles;
    const hid_t file = handles(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
    for (const char* name : kNames) {
      const unsigned how = take_byte(bytes);
      const hsize_t size = how % 8 == 7 ? take_byte(bytes) : 1;
      const hid_t space = handles(how % 8 == 6   ? H5Screate(H5S_NULL)
                                  : how % 8 == 5 ? H5Screate(H5S_SCALAR)
                                                 : H5Screate_simple(1, &size, nullptr),
                                  H5Sclose);
      const bool odd = how & 16, text = std::string_view(name).starts_with("num_") == ((how & 32) != 0);
      const hid_t type = odd    ? odd_type(handles, bytes)
                         : text ? text_type(handles, how & 64 ? 9 : H5T_VARIABLE, how & 128)
                                : integer_type(handles, bytes);
      const hid_t attribute =
          handles(H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
      const std::string value(take_until(bytes, '\0'));
      const char* pointer = value.c_str();
      if (text && !odd && size == 1 && !(how & 64) && how % 8 < 6)
        H5Awrite(attribute, text_type(handles, H5T_VARIABLE, how & 128), &pointer);
    }
  }
  look_at_finished_output(path);
}

/// What lies under an output's name when a job starts.
void read_output(std::string_view bytes) { read_finished_output(write_scratch("finished.h5", bytes)); }

}  // namespace moerun::fuzz
