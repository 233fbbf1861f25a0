#include <map>

#include "tests/fuzz/harness.h"
#include "tests/unit/store_fixture.h"

namespace moerun::fuzz {

namespace {

namespace fs = std::filesystem;
using Files = std::map<std::string, std::string>;  // name → bytes

constexpr uint64_t kRows = 12, kSealed = 8;

/// The files of a job that sealed 8 of its 12 rows in several segments.
Files begun_run(const StoreJob& job) {
  job.answer_and_seal(0, 5);
  job.answer_and_seal(5, kSealed);
  Files files;
  for (const auto& entry : fs::directory_iterator(job.run()))
    files[entry.path().filename().string()] = read_file(entry.path());
  return files;
}

/// Does what five bytes or more say to one of the files.
void damage(Files& files, const std::string& directory, std::string_view& bytes) {
  auto at = files.begin();
  std::advance(at, take_byte(bytes) % files.size());
  const std::string path = directory + "/" + at->first;
  std::string& text = at->second;
  const unsigned how = take_byte(bytes) % 7;
  const size_t offset = (take_byte(bytes) << 8 | take_byte(bytes)) % (text.size() + 1);
  const size_t count = std::min<size_t>(take_byte(bytes), text.size() - offset);
  if (how == 0) text.replace(offset, std::min(count, bytes.size()), bytes.substr(0, count));
  if (how == 1) text.resize(offset);
  if (how == 2) text.insert(offset, bytes.substr(0, count));
  if (how == 3) text.insert(offset, text.substr(offset, count));  // a part twice
  fs::remove_all(path);
  if (how == 4) return;
  if (how == 5) {
    fs::create_directory(path);
  } else if (how == 6) {
    fs::create_symlink(directory + "/" + files.begin()->first, path);
  } else {
    std::ofstream(path, std::ios::binary) << text;
  }
}

}  // namespace

/// Resume of a run directory that was damaged as the bytes say: it is refused, or ends in the output of an
/// undisturbed run.
void resume_run_directory(std::string_view bytes) {
  static const std::string whole = [] {
    StoreJob job;
    job.num_rows = kRows;
    job.go();
    return job.jsonl();
  }();
  StoreJob job;
  job.num_rows = kRows;
  Files files = begun_run(job);
  for (int times = 0; times < 4 && !bytes.empty(); ++times) damage(files, job.run(), bytes);
  job.go();
  check(job.jsonl() == whole, "a resumed run ends in the answers of an undisturbed one");
}

}  // namespace moerun::fuzz
