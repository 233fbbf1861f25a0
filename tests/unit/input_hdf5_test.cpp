#include <filesystem>
#include <fstream>

#include "io/hdf5.h"
#include "moerun/error.h"
#include "tests/catch.h"
#include "tests/unit/temporary_directory.h"

using namespace moerun;

TEST_CASE("numbers, strings and attributes come back from an HDF5 file as they went in", "[hdf5]") {
  const TemporaryDirectory dir;
  const std::string path = dir / "a.h5";
  {
    hdf5::File file = hdf5::File::create(path);
    file.set_attribute("job", std::string("größe: 1"));
    file.set_attribute("seed", uint64_t{7});
    hdf5::Dataset values = file.create_dataset<int32_t>("results/tokens", {.chunk_rows = 4, .gzip = 4});
    values.append(std::vector<int32_t>{1, -2, 3});
    values.append(std::vector<int32_t>{4, 5, 6});
    hdf5::Dataset pairs = file.create_dataset<float>("results/pairs", {.chunk_rows = 4}, {2});
    pairs.append(std::vector<float>{1, 2, 3, 4});
    CHECK(pairs.rows() == 2);
    CHECK_THROWS_AS(pairs.append(std::vector<float>{1}), Error);
    hdf5::Dataset ids = file.create_string_dataset("results/id", {.chunk_rows = 2});
    ids.append_strings(std::vector<std::string>{"a", "", "ü"});
  }
  hdf5::File file = hdf5::File::open(path);
  CHECK(file.string_attribute("job") == "größe: 1");
  CHECK(!file.string_attribute("none"));
  CHECK(file.has("results/tokens"));
  CHECK(file.has("/results/tokens"));
  CHECK(!file.has("nothing/tokens"));
  const hdf5::Dataset values = file.dataset("/results/tokens");
  CHECK(values.is_integer());
  CHECK(values.read<int64_t>(1, 4) == std::vector<int64_t>{-2, 3, 4, 5});
  CHECK(file.dataset("results/pairs").read<double>(1, 1) == std::vector<double>{3, 4});
  const hdf5::Dataset ids = file.dataset("results/id");
  CHECK(ids.is_string());
  CHECK(ids.read_strings(0, 3) == std::vector<std::string>{"a", "", "ü"});
  CHECK_THROWS_AS(values.read<int32_t>(4, 9), Error);
}

TEST_CASE("equal contents are equal bytes, whenever they were written", "[hdf5]") {
  const TemporaryDirectory dir;
  std::string bytes[2];
  for (int i = 0; i < 2; ++i) {
    const std::string path = dir / "b.h5";
    hdf5::File file = hdf5::File::create(path);
    file.create_dataset<int32_t>("a/b", {.gzip = 1, .shuffle = true}).append(std::vector<int32_t>(1000, 3));
    file.close();
    std::ifstream in(path, std::ios::binary);
    bytes[i].assign(std::istreambuf_iterator<char>(in), {});
  }
  CHECK(bytes[0] == bytes[1]);
}

TEST_CASE("HDF5 faults are errors with HDF5's own reason", "[hdf5]") {
  const TemporaryDirectory dir;
  CHECK_THROWS_WITH(hdf5::File::open(dir / "none.h5"), ContainsSubstring("No such file"));
  std::ofstream(dir / "text.h5") << "this is no HDF5 file";
  CHECK_THROWS_WITH(hdf5::File::open(dir / "text.h5"), ContainsSubstring("signature"));
  { hdf5::File::create(dir / "c.h5").create_dataset<int32_t>("x", {}).append(std::vector<int32_t>(5000, 1)); }
  std::filesystem::resize_file(dir / "c.h5", std::filesystem::file_size(dir / "c.h5") - 700);
  CHECK_THROWS_WITH(hdf5::File::open(dir / "c.h5"), ContainsSubstring("truncated"));
}
