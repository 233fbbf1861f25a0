#include "run/read_weights.h"

#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <mutex>

#include "io/checkpoint_files.h"
#include "io/file_state.h"
#include "io/weight_hash.h"
#include "moerun/error.h"
#include "moerun/wire.h"

namespace moerun {

namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point began) { return std::chrono::duration<double>(Clock::now() - began).count(); }

/// Tells the watchdog and, at rank 0, a user who waits for a large checkpoint. Any thread may call.
class ReadingProgress {
 public:
  explicit ReadingProgress(const MpiEnv& env) : env_(env) {}

  void operator()(uint64_t bytes, uint64_t of_bytes) {
    const std::lock_guard lock(mutex_);
    if (env_.progress()) env_.progress()->beat();
    read_ += bytes;
    const double seconds = since(began_);
    if (env_.rank() != 0 || seconds < due_) return;
    due_ = seconds + kEvery;
    constexpr double kGiB = 1 << 30;
    fmt::print(
        stderr,
        "reading weights for their fingerprint: {:.1f} of {:.1f} GiB of rank 0's share, {:.2f} GiB/s\n",
        static_cast<double>(read_) / kGiB, static_cast<double>(of_bytes) / kGiB,
        static_cast<double>(read_) / kGiB / seconds);
  }

 private:
  static constexpr double kEvery = 5;  // seconds
  const MpiEnv& env_;
  const Clock::time_point began_ = Clock::now();
  std::mutex mutex_;
  uint64_t read_ = 0;
  double due_ = kEvery;
};

/// What a rank tells the others: what is wrong (a sentence; empty: nothing), or what it has read.
struct ReaderSays {
  std::string fault;
  HashedPieces read;

  std::string pack() const {
    WireWriter out;
    out.put(fault), out.put(read.listing), out.put(read.num_pieces), out.put(read.first),
        out.put(read.hashes);
    return out.take();
  }
  static ReaderSays unpack(const std::string& bytes) {
    WireReader in(bytes);
    ReaderSays says;
    in.get(says.fault), in.get(says.read.listing), in.get(says.read.num_pieces), in.get(says.read.first),
        in.get(says.read.hashes);
    return says;
  }
};

ReaderSays hash_mine(const MpiEnv& env, const std::string& model_dir, int threads, std::string& state) {
  try {
    const std::vector<std::string> files = weight_files(model_dir);
    state = state_of_files(files);
    const HashShare share{.part = env.local_rank(), .parts = env.local_size(), .threads = threads};
    ReadingProgress progress(env);
    return {.read = hash_pieces(files, share, std::ref(progress))};
  } catch (const std::exception& error) {
    return {.fault = fmt::format("{} (rank {}, host {})", error.what(), env.rank(), env.host())};
  }
}

}  // namespace

std::vector<std::string> weight_files(const std::string& model_dir) {
  std::vector<std::string> paths;
  for (const std::string& name : find_checkpoint_files(model_dir).names)
    paths.push_back(fmt::format("{}/{}", model_dir, name));
  return paths;
}

WeightsRead read_weights(const MpiEnv& env, const std::string& model_dir) {
  const auto began = Clock::now();
  const int threads = hash_threads(env.local_size());
  WeightsRead out{.readers = env.local_size() * threads};
  std::vector<HashedPieces> readers;
  for (const std::string& text : env.all_gather(hash_mine(env, model_dir, threads, out.state).pack())) {
    ReaderSays says = ReaderSays::unpack(text);
    if (out.fault.empty()) out.fault = says.fault;
    readers.push_back(std::move(says.read));
  }
  if (!out.fault.empty()) return out;
  try {
    const WeightsFingerprint joined = join_pieces(readers);
    out.fingerprint = joined.text;
    if (joined.one != joined.another)
      out.fault = fmt::format(
          "{}: ranks {} (host {}) and {} (host {}) read different weights there: copy one folder to all "
          "hosts, and let nothing write to it",
          model_dir, joined.one, env.hosts()[joined.one], joined.another, env.hosts()[joined.another]);
    for (const std::string& path : weight_files(model_dir)) out.bytes += std::filesystem::file_size(path);
  } catch (const std::exception& error) {
    out.fault = error.what();
  }
  out.seconds = since(began);
  return out;
}

}  // namespace moerun
