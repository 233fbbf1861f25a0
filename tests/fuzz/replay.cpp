// Every input of a corpus once through its harness, without libFuzzer. Usage: replay CORPUS [HARNESS ...]
// A folder a harness; an input whose name ends in .gz is what it unpacks to (deep nesting, long lines). An
// input has kSeconds and kBytes. Ends with "N passed, M failed".
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <zlib.h>

#include <algorithm>
#include <memory>

#include "io/hdf5_child_main.h"
#include "tests/fuzz/harness.h"

namespace {

using namespace moerun::fuzz;
namespace fs = std::filesystem;

constexpr rlim_t kSeconds = 10;         // of a processor
constexpr unsigned kWallSeconds = 300;  // for one that sleeps
constexpr rlim_t kBytes = rlim_t{4} << 30;

std::string unpacked(const std::string& path) {
  if (!path.ends_with(".gz")) return read_all(path);
  const std::unique_ptr<gzFile_s, decltype(&gzclose)> file(gzopen(path.c_str(), "rb"), &gzclose);
  std::string bytes(size_t{16} << 20, '\0');
  const int size = gzread(file.get(), bytes.data(), static_cast<unsigned>(bytes.size()));
  check(size >= 0, "a corpus entry is no gzip file");
  bytes.resize(static_cast<size_t>(size));
  return bytes;
}

/// In a process of its own, so that one that dies is one failure. Returns what went wrong.
std::string replay(const Harness& harness, const std::string& path) {
  const std::string bytes = unpacked(path);
  std::fflush(stdout);  // or the child has it too
  const pid_t child = fork();
  if (child == 0) {
    const rlimit memory = {kBytes, kBytes}, time = {kSeconds, kSeconds}, no_core = {0, 0};
    setrlimit(RLIMIT_AS, &memory);
    setrlimit(RLIMIT_CPU, &time);
    setrlimit(RLIMIT_CORE, &no_core);
    alarm(kWallSeconds);
    try {
      run(harness, bytes);
    } catch (const std::exception& error) {
      fmt::print("  {}: {}\n", path, error.what());
      std::fflush(stdout);
      _exit(1);
    }
    std::error_code ignored;
    fs::remove_all(scratch(), ignored);
    _exit(0);
  }
  int status = 0;
  check(child > 0 && waitpid(child, &status, 0) == child, "no process can be started");
  if (WIFSIGNALED(status)) return fmt::format("ended by signal {}", WTERMSIG(status));
  return WEXITSTATUS(status) == 0 ? "" : "left with an exception that is no refusal";
}

int replay_corpus(const std::string& corpus, const std::vector<std::string>& only) {
  int passed = 0, failed = 0;
  for (const Harness& harness : harnesses()) {
    if (!only.empty() && std::find(only.begin(), only.end(), harness.name) == only.end()) continue;
    std::vector<std::string> paths;
    for (const auto& entry : fs::directory_iterator(corpus + "/" + std::string(harness.name)))
      paths.push_back(entry.path().string());
    std::sort(paths.begin(), paths.end());
    for (const std::string& path : paths) {
      const std::string fault = replay(harness, path);
      if (!fault.empty()) fmt::print("  FAILED  {}: {}\n", path, fault);
      (fault.empty() ? passed : failed) += 1;
    }
    if (paths.empty()) fmt::print("  FAILED  {}: no inputs\n", harness.name);
    failed += paths.empty();
  }
  fmt::print("{} passed, {} failed\n", passed, failed);
  return failed > 0 ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  // HDF5 inputs are read by this program started again.
  if (const auto code = moerun::hdf5_child_main(argc, argv)) return *code;
  try {
    if (argc < 2) throw std::logic_error("usage: replay CORPUS [HARNESS ...]");
    return replay_corpus(argv[1], {argv + 2, argv + argc});
  } catch (const std::exception& error) {
    fmt::print(stderr, "replay: {}\n", error.what());
    return 2;
  }
}
