#include "io/output_files.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>

#include "io/content_sums.h"
#include "io/directory.h"
#include "io/run_directory.h"
#include "moerun/file_names.h"

namespace moerun {

namespace fs = std::filesystem;

namespace {

Directory directory_at(const fs::path& path) { return {directory_of(path), Directory::Links::followed}; }

[[noreturn]] void refuse_to_replace(const fs::path& path) {
  throw Error(fmt::format("{} appeared while the job ran and is not replaced: move it away", path.string()),
              ExitCode::stopped);
}

}  // namespace

bool OutputFiles::finished() const { return fs::exists(hdf5); }

fs::path OutputFiles::run_directory() const { return run_directory_of(hdf5); }

std::vector<OutputFiles::Lines> OutputFiles::lines() const {
  std::vector<Lines> out{{jsonl, kJsonlRecord}, {errors, kErrorsRecord}};
  std::erase_if(out, [](const Lines& one) { return one.path.empty(); });
  return out;
}

std::vector<fs::path> OutputFiles::all() const {
  std::vector<fs::path> out;
  for (const Lines& one : lines()) out.push_back(one.path);
  out.push_back(hdf5);
  return out;
}

void OutputFiles::check() const {
  for (const fs::path& path : all()) {
    const fs::path directory = directory_of(path);
    if (!fs::is_directory(directory))
      throw BadInput(
          fmt::format("{} cannot be written: {} is no directory", path.string(), directory.string()));
    if (fs::is_directory(path))
      throw BadInput(fmt::format("{} cannot be written: it is a directory", path.string()));
    if (is_link(path) && !fs::exists(path))
      throw BadInput(
          fmt::format("{} cannot be written: it is a symbolic link that leads nowhere; remove it, "
                      "or name the file that it stands for",
                      path.string()));
  }
}

void OutputFiles::check_no_links() const {
  for (const fs::path& path : all())
    if (is_link(path))
      throw BadInput(fmt::format("{} is a symbolic link: remove it, or name the file that it stands for",
                                 path.string()));
}

void OutputFiles::check_names_free() const {
  for (const fs::path& path : all())
    if (directory_at(path).has(path.filename())) refuse_to_replace(path);
}

void OutputFiles::remove_temporaries() const {
  for (const fs::path& path : all()) remove_file(temporary_name(path));
}

void OutputFiles::give_back_temporaries() const noexcept {
  for (const fs::path& path : all()) {
    const fs::path temporary = temporary_name(path);
    std::error_code ignored;
    if (!is_link(temporary)) fs::resize_file(temporary, 0, ignored);
    fs::remove(temporary, ignored);
  }
}

fs::path temporary_name(const fs::path& path) { return path.string() + kTemporarySuffix; }

void name_output(const fs::path& path) {
  if (!directory_at(path).rename_new_durably(temporary_name(path).filename(), path.filename()))
    refuse_to_replace(path);
}

WrittenFile look_at_output(const fs::path& path) {
  const FileDescriptor file = directory_at(path).open(path.filename());
  std::string buffer(1 << 20, '\0');
  WrittenFile found;
  Sha256 sum;
  for (;;) {
    const ssize_t got = uninterrupted([&] { return ::read(file.get(), buffer.data(), buffer.size()); });
    if (got < 0) throw FileError("read", path, errno);
    if (got == 0) break;
    sum.update(std::string_view(buffer).substr(0, static_cast<size_t>(got)));
    found.bytes += static_cast<uint64_t>(got);
  }
  found.sha256 = sum.hex();
  return found;
}

}  // namespace moerun
