// The result store alone: time and memory to seal, resume and merge many rows. Each phase is a process of its
// own, so that its memory is its own. Usage: store_bench [ROWS=1000000] [TOKENS=32] [DIRECTORY=.]
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>

#include "io/result_hdf5.h"
#include "io/result_store.h"
#include "moerun/error.h"

using namespace moerun;

namespace {

struct Bench {
  Job job;
  uint64_t num_rows = 1000000;
  int tokens = 32;

  OpenedStore open() const {
    return open_result_store(job, {{"bench", "store"}}, {.job_yaml = "bench"}, num_rows, false, false);
  }

  RowResult answer_to(uint64_t row) const {
    RowResult result = {.row = row, .id = fmt::format("prompt-{}", row)};
    result.finish_reason = FinishReason::length;
    result.prompt_length = 100;
    for (int i = 0; i < tokens; ++i) {
      const uint64_t mixed = (row * 64 + static_cast<uint64_t>(i)) * 0x9E3779B97F4A7C15u;
      result.token_ids.push_back(static_cast<int32_t>(mixed >> 47));
      result.logprobs.push_back(-static_cast<float>(mixed >> 40) * 0x1p-22f);
      result.text += static_cast<char>('a' + mixed % 26);
      if (i % 4 == 3) result.text += ' ';
    }
    return result;
  }

  // Rows come nearly in order, as they do when a few hundred sequences run at once.
  void answer(ResultStore& store, uint64_t begin, uint64_t end) const {
    constexpr uint64_t kInFlight = 2048;
    for (uint64_t block = begin; block < end; block += kInFlight)
      for (uint64_t i = 0; i < kInFlight; ++i) {
        const uint64_t row = block + i * 5 % kInFlight;
        if (row >= end || store.answered(row)) continue;
        store.append(answer_to(row));
        store.seal_if_due();
      }
  }
};

void phase(const char* name, uint64_t rows, const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    try {
      body();
    } catch (const std::exception& error) {
      fmt::print(stderr, "{}\n", error.what());
      ::_exit(1);
    }
    ::_exit(0);
  }
  int status = 0;
  rusage usage = {};
  ::wait4(child, &status, 0, &usage);
  if (status != 0) throw Error(fmt::format("{} failed", name));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double cpu = static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                     1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
  fmt::print("{:<28} {:8.2f} s {:8.2f} s CPU {:10.0f} rows/s {:8.1f} MiB peak\n", name, seconds, cpu,
             static_cast<double>(rows) / seconds, static_cast<double>(usage.ru_maxrss) / 1024);
}

double cpu_seconds() {
  rusage usage = {};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/// The columns without the store: what writing them takes, and what reading them back takes of it.
void columns_alone(const Bench& bench, const std::filesystem::path& path) {
  const double began = cpu_seconds();
  RowTraits traits;
  traits.add(bench.answer_to(0));
  Hdf5Results results(path, traits, bench.num_rows);
  for (uint64_t row = 0; row < bench.num_rows; ++row) results.append(bench.answer_to(row));
  const WrittenResults written = results.finish({.fingerprint = "[]", .num_rows = bench.num_rows});
  const double wrote = cpu_seconds();
  read_back(path, written);
  fmt::print("  columns written in {:.2f} s CPU, read back in {:.2f} s CPU: {:.1f} MiB\n", wrote - began,
             cpu_seconds() - wrote, static_cast<double>(std::filesystem::file_size(path)) / (1 << 20));
  std::fflush(nullptr);
}

}  // namespace

int main(int argc, char** argv) {
  Bench bench;
  if (argc > 1) bench.num_rows = std::strtoull(argv[1], nullptr, 10);
  if (argc > 2) bench.tokens = std::atoi(argv[2]);
  const std::filesystem::path directory =
      std::filesystem::path(argc > 3 ? argv[3] : ".") / fmt::format("store_bench.{}", ::getpid());
  std::filesystem::create_directory(directory);
  bench.job.output.path = directory / "out.h5";
  bench.job.output.jsonl = directory / "out.jsonl";
  const uint64_t half = bench.num_rows / 2;
  fmt::print("{} rows of {} tokens\n", bench.num_rows, bench.tokens);
  phase("make answers alone", bench.num_rows, [&] {
    size_t bytes = 0;
    for (uint64_t row = 0; row < bench.num_rows; ++row) bytes += bench.answer_to(row).text.size();
    if (bytes == 0) std::abort();
  });
  phase("seal the first half", half, [&] {
    OpenedStore opened = bench.open();
    bench.answer(*opened.store, 0, half);
    opened.store->seal();
  });
  phase("resume", half, [&] { bench.open(); });
  phase("seal the second half", bench.num_rows - half, [&] {
    OpenedStore opened = bench.open();
    bench.answer(*opened.store, half, bench.num_rows);
    opened.store->seal();
  });
  const auto size = [](const std::filesystem::path& path) {
    return static_cast<double>(std::filesystem::file_size(path)) / (1 << 20);
  };
  phase("resume and merge", bench.num_rows, [&] { bench.open().store->finish(); });
  phase("columns alone", bench.num_rows, [&] { columns_alone(bench, directory / "columns.h5"); });
  fmt::print("out.h5 {:.1f} MiB, out.jsonl {:.1f} MiB\n", size(bench.job.output.path),
             size(bench.job.output.jsonl));
  std::filesystem::remove_all(directory);
}
