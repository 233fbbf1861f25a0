#include <hdf5.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <string>

#include "io/hdf5.h"
#include "io/hdf5_child.h"
#include "tests/unit/input_fixture.h"

using namespace moerun;

namespace {

using hdf5::Handle;

/// An input of text whose /prompts/text the test makes itself; /prompts is there.
struct RawInput : InputFixture {
  RawInput() : InputFixture("a.h5", "") {}

  template <class Fill>
  std::string faults_of(Fill fill) {
    {
      hdf5::File file = hdf5::File::create(job.input.path);
      const hdf5::Group prompts = file.create_group("prompts");
      fill(prompts.hid());
    }
    return faults();
  }
};

Handle space_of(hsize_t rows) { return {H5Screate_simple(1, &rows, nullptr), H5Sclose}; }

Handle string_type(size_t bytes) {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.get(), bytes);
  return type;
}

void make(hid_t group, const char* name, hid_t type, hsize_t rows, hid_t created = H5P_DEFAULT) {
  const Handle data(H5Dcreate2(group, name, type, space_of(rows).get(), H5P_DEFAULT, created, H5P_DEFAULT),
                    H5Dclose);
  REQUIRE(data.get() >= 0);
}

void write_texts(const std::string& path, const std::string& name, const std::vector<std::string>& texts) {
  hdf5::File file = hdf5::File::create(path);
  hdf5::Dataset data = file.create_fixed_string_dataset(name, 8, {.chunk_rows = 4});
  data.append_fixed_strings(std::vector<std::string_view>(texts.begin(), texts.end()));
}

Handle chunks_of(hsize_t rows) {
  Handle list(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_chunk(list.get(), 1, &rows);
  return list;
}

/// /prompts/text as two sources' rows, one after the other.
Handle virtual_of(const std::string& first, const std::string& second, hsize_t rows) {
  Handle list(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  const Handle all = space_of(2 * rows);
  const Handle source = space_of(rows);
  hsize_t begin = 0;
  for (const std::string& file : {first, second}) {
    H5Sselect_hyperslab(all.get(), H5S_SELECT_SET, &begin, nullptr, &rows, nullptr);
    REQUIRE(H5Pset_virtual(list.get(), all.get(), file.c_str(), "x", source.get()) >= 0);
    begin += rows;
  }
  return list;
}

}  // namespace

TEST_CASE("small HDF5 files that claim much are refused at once", "[input]") {
  RawInput input;
  const Handle chunked = chunks_of(1 << 16);
  CHECK_THAT(input.faults_of([&](hid_t group) {
    make(group, "text", string_type(8).get(), hsize_t{1} << 40, chunked.get());
  }),
             ContainsSubstring("a.h5:/prompts/text was not written to its end"));
  CHECK_THAT(input.faults_of([&](hid_t group) {
    make(group, "offsets", H5T_NATIVE_UINT64, (hsize_t{1} << 31) + 1, chunked.get());
    make(group, "tokens", H5T_NATIVE_INT32, hsize_t{1} << 31, chunked.get());
  }),
             ContainsSubstring("a.h5:/prompts/tokens was not written to its end"));
  CHECK_THAT(
      input.faults_of([&](hid_t group) { make(group, "text", string_type(size_t{1} << 30).get(), 4); }),
      ContainsSubstring("a.h5:/prompts/text has values of 1073741824 bytes, more than 64 MiB"));
  CHECK_THAT(input.faults_of([&](hid_t group) {
    make(group, "text", string_type(1 << 20).get(), 4096, chunks_of(1024).get());
  }),
             ContainsSubstring("a.h5:/prompts/text has chunks of more than 512 MiB"));
  CHECK_THAT(input.faults_of([&](hid_t group) { make(group, "text", string_type(8).get(), 4); }),
             ContainsSubstring("a.h5:/prompts/text was not written to its end"));
}

TEST_CASE("long HDF5 strings come in blocks, and beyond the limit as bad rows", "[input]") {
  RawInput input;
  {
    hdf5::File file = hdf5::File::create(input.job.input.path);
    hdf5::Dataset text = file.create_string_dataset("prompts/text", {.chunk_rows = 1});
    for (int i = 0; i < 40; ++i)
      text.append_strings(std::vector<std::string>{std::string(5 << 20, static_cast<char>('a' + i % 26))});
    text.append_strings(std::vector<std::string>{std::string((64 << 20) + 1, 'a'), "short"});
  }
  const std::vector<PromptRecord> rows = input.rows();
  REQUIRE(rows.size() == 42);
  CHECK(rows[39].prompt == std::string(5 << 20, static_cast<char>('a' + 39 % 26)));
  CHECK(rows[40].error == "the prompt is longer than 64 MiB");
  CHECK(rows[41].prompt == "short");
}

TEST_CASE("links of an HDF5 input into other files are refused unless they are allowed", "[input]") {
  RawInput input;
  const std::string other = input.dir / "other.h5";
  write_texts(other, "x", {"secret", "b"});
  const auto link = [&](hid_t group) {
    H5Lcreate_external(other.c_str(), "/x", group, "text", H5P_DEFAULT, H5P_DEFAULT);
  };
  CHECK(input.faults_of(link) ==
        "a.h5:/prompts/text is a link into another file, other.h5: set input.allow_external: true to read "
        "it, if you "
        "trust who wrote this file");
  // A way round: a link of the file itself that leads to one.
  CHECK_THAT(input.faults_of([&](hid_t group) {
    H5Lcreate_external(other.c_str(), "/x", group, "there", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_soft("/prompts/there", group, "text", H5P_DEFAULT, H5P_DEFAULT);
  }),
             ContainsSubstring("is a link into another file, other.h5"));
  input.job.input.allow_external = true;
  CHECK(input.faults_of(link) == "");
  CHECK(input.rows()[0].prompt == "secret");
  const std::string before = input.check().checksum;
  write_texts(other, "x", {"secreT", "b"});
  CHECK(input.check().checksum != before);
  CHECK_THAT(input.faults_of([&](hid_t group) {
    H5Lcreate_external((input.dir / "absent.h5").c_str(), "/x", group, "text", H5P_DEFAULT, H5P_DEFAULT);
  }),
             ContainsSubstring("a.h5:/prompts/text is a link that leads nowhere"));
  CHECK_THAT(
      input.faults_of([](hid_t group) { H5Lcreate_soft("/none", group, "text", H5P_DEFAULT, H5P_DEFAULT); }),
      ContainsSubstring("a.h5:/prompts/text is a link that leads nowhere"));
}

TEST_CASE("raw data of an HDF5 input in other files is refused unless it is allowed, and must be there",
          "[input]") {
  RawInput input;
  const std::string raw = input.dir / "raw";
  std::ofstream(raw) << "secretto";
  const auto external = [&](hid_t group) {
    const Handle list(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    H5Pset_external(list.get(), raw.c_str(), 0, H5F_UNLIMITED);
    make(group, "text", string_type(4).get(), 2, list.get());
  };
  CHECK_THAT(
      input.faults_of(external),
      ContainsSubstring("a.h5:/prompts/text has its data in another file, raw: set input.allow_external"));
  input.job.input.allow_external = true;
  CHECK(input.faults_of(external) == "");
  CHECK(input.rows()[1].prompt == "etto");
  const std::string before = input.check().checksum;
  std::ofstream(raw) << "secretta";
  CHECK(input.check().checksum != before);
  std::ofstream(raw) << "secrett";
  CHECK_THAT(input.faults(), ContainsSubstring("has its data in raw, which is not there or too short"));
}

TEST_CASE("sources of a virtual HDF5 dataset are allowed, there and whole, or it is refused", "[input]") {
  RawInput input;
  write_texts(input.dir / "one.h5", "x", {"a", "b"});
  write_texts(input.dir / "two.h5", "x", {"c", "d"});
  const auto two = [](const std::string& second, hsize_t rows = 2) {
    return [=](hid_t group) {
      make(group, "text", string_type(8).get(), 2 * rows, virtual_of("one.h5", second, rows).get());
    };
  };
  CHECK_THAT(
      input.faults_of(two("two.h5")),
      ContainsSubstring(
          "a.h5:/prompts/text is virtual with a source in another file, one.h5: set input.allow_external"));
  input.job.input.allow_external = true;
  CHECK(input.faults_of(two("two.h5")) == "");
  CHECK(input.rows()[3].prompt == "d");
  CHECK_THAT(input.faults_of(two("three.h5")), ContainsSubstring("source three.h5:x: the file is not there"));
  CHECK_THAT(input.faults_of(two("two.h5", 3)),
             ContainsSubstring("the dataset is smaller than what is taken from it"));
  write_texts(input.dir / "two.h5", "y", {"c", "d"});
  CHECK_THAT(input.faults_of(two("two.h5")), ContainsSubstring("source two.h5:x: the dataset is not there"));
  CHECK_THAT(input.faults_of([](hid_t group) {
    make(group, "text", string_type(8).get(), 5, virtual_of("one.h5", "one.h5", 2).get());
  }),
             ContainsSubstring("is virtual, and its sources give 4 of its 5 values"));
}

TEST_CASE("damaged HDF5 files are refused or read; the job lives", "[input]") {
  InputFixture input("a.h5", "");
  {
    hdf5::File file = hdf5::File::create(input.job.input.path);
    file.create_string_dataset("prompts/text", {.chunk_rows = 4, .gzip = 1})
        .append_strings(std::vector<std::string>(20, "prompt"));
    file.create_dataset<int64_t>("prompts/id", {.chunk_rows = 4})
        .append(std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20});
  }
  std::ifstream in(input.job.input.path, std::ios::binary);
  const std::string sound(std::istreambuf_iterator<char>(in), {});
  std::mt19937 random(7);
  for (int i = 0; i < 60; ++i) {
    std::string damaged = sound;
    for (int k = 0; k < 8; ++k) damaged[random() % damaged.size()] = static_cast<char>(random());
    std::ofstream(input.job.input.path, std::ios::binary | std::ios::trunc) << damaged;
    CHECK_NOTHROW(input.faults());  // a BadInput, or none
  }
}

TEST_CASE("the process that reads an HDF5 file may die: the input is refused with a sentence", "[input]") {
  InputFixture input("a.h5", "");
  {
    hdf5::File::create(input.job.input.path)
        .create_dataset<int32_t>("prompts/tokens", {.chunk_rows = 1})
        .append(std::vector<int32_t>{1});
  }
  CHECK_THROWS_WITH(Hdf5Child(input.job.input.path, false),
                    ContainsSubstring("it has /prompts/tokens without /prompts/offsets"));
  write_texts(input.job.input.path, "prompts/text", {"a"});
  Hdf5Child child(input.job.input.path, false);
  REQUIRE(::kill(child.process(), SIGSEGV) == 0);
  CHECK_THROWS_WITH(
      child.read(0),
      ContainsSubstring("a.h5: the HDF5 library dies of it (Segmentation fault): it is damaged"));
  CHECK_THROWS_WITH(child.read(0), ContainsSubstring("a.h5: the HDF5 library dies of it"));
  Hdf5Child busy(input.job.input.path, false);
  REQUIRE(::kill(busy.process(), SIGPROF) == 0);
  CHECK_THROWS_WITH(busy.read(0),
                    ContainsSubstring("does not come to an end with it in 60 seconds of processor time"));
}
