#include "plan/checks.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <utility>

#include "job/faults.h"
#include "job/sampling_fields.h"
#include "layout/topology.h"
#include "model/rope.h"
#include "model/shard.h"
#include "moerun/error.h"
#include "moerun/file_names.h"

namespace moerun {
namespace {

namespace fs = std::filesystem;

fs::path directory_of(const std::string& path) {
  const fs::path parent = fs::path(path).parent_path();
  return parent.empty() ? fs::path(".") : parent;
}

bool is_same_file(const std::string& a, const std::string& b) {
  std::error_code ignored;
  // "./a" and "a" are one also where neither is there.
  const auto whole = [&](const std::string& path) {
    return fs::weakly_canonical(fs::absolute(path, ignored), ignored);
  };
  return whole(a) == whole(b) || fs::equivalent(a, b, ignored);
}

void check_readable(const std::string& key, const std::string& path, Faults& faults) {
  std::error_code ignored;
  if (access(path.c_str(), R_OK) != 0)
    faults.add(key, fmt::format("{} cannot be read: {}", path, std::strerror(errno)));
  else if (!fs::is_regular_file(path, ignored))
    faults.add(key, fmt::format("{} is no regular file", path));
}

/// The directory that will hold `path`, or the nearest on the way to it that is there.
fs::path nearest_directory(const std::string& path) {
  std::error_code ignored;
  fs::path directory = directory_of(path);
  while (!directory.empty() && fs::symlink_status(directory, ignored).type() == fs::file_type::not_found)
    directory = directory.parent_path();
  return directory.empty() ? fs::path(".") : directory;
}

void check_writable(const std::string& key, const std::string& path, Faults& faults) {
  const fs::path directory = nearest_directory(path);
  std::error_code ignored;
  if (!fs::is_directory(directory, ignored))
    faults.add(key, fmt::format("{} is no directory", directory.string()));
  else if (access(directory.c_str(), W_OK | X_OK) != 0)
    faults.add(key, fmt::format("{} cannot be written to: {}", directory.string(), std::strerror(errno)));
  else if (fs::exists(path, ignored) && !fs::is_regular_file(path, ignored))
    faults.add(key, fmt::format("{} is there and no regular file", path));
}

using Paths = std::vector<std::pair<std::string, std::string>>;  // what it is, path

/// The files that a job writes, by their keys.
Paths written_files(const Job& job) {
  Paths files{{"output.path", job.output.path},     {"output.jsonl", job.output.jsonl},
              {"output.errors", job.output.errors}, {"report.path", job.report.path},
              {"report.html", job.report.html},     {"report.prometheus", job.report.prometheus}};
  std::erase_if(files, [](const auto& file) { return file.second.empty(); });
  return files;
}

/// A report takes the place of an earlier one, and of nothing else.
void check_report(const std::string& key, const std::string& path, Faults& faults) {
  const char* const begin = key == "report.path"         ? kReportJsonBegin
                            : key == "report.html"       ? kReportHtmlBegin
                            : key == "report.prometheus" ? kMetricsBegin
                                                         : nullptr;
  std::error_code ignored;
  if (!begin || !fs::is_regular_file(path, ignored) || fs::file_size(path, ignored) == 0) return;
  std::string found(std::strlen(begin), '\0');
  std::ifstream(path).read(found.data(), static_cast<std::streamsize>(found.size()));
  if (found != begin)
    faults.add(key, fmt::format("{} is there and no report: move it away or name another file", path));
}

bool is_inside(const std::string& path, const std::string& folder) {
  const fs::path relative = fs::weakly_canonical(path).lexically_relative(fs::weakly_canonical(folder));
  return !relative.empty() && *relative.begin() != "..";
}

/// A file is written under another name first, and answers are kept in a folder beside the output.
void check_names_on_the_way(const Paths& files, Faults& faults) {
  for (const auto& [key, path] : files)
    for (const auto& [other_key, other] : files) {
      if (is_same_file(path, other + kTemporarySuffix))
        faults.add(key, fmt::format("{} is the name under which {} is written", path, other_key));
      else if (other_key == "output.path" && is_inside(path, other + kRunDirectorySuffix))
        faults.add(key, fmt::format("{} is in the folder in which the job's answers are kept", path));
    }
}

/// Free bytes for this user where `path` will be, and which file system that is.
struct Room {
  dev_t device = 0;
  uint64_t free_bytes = UINT64_MAX;
};

Room room_at(const std::string& path) {
  const fs::path directory = nearest_directory(path);
  struct stat status {};
  struct statvfs system {};
  if (stat(directory.c_str(), &status) != 0 || statvfs(directory.c_str(), &system) != 0)
    throw BadInput(
        fmt::format("{}: the free room cannot be read: {}", directory.string(), std::strerror(errno)));
  return {status.st_dev, static_cast<uint64_t>(system.f_bavail) * system.f_frsize};
}

std::string size_text(uint64_t bytes) {
  constexpr double kKiB = 1 << 10, kMiB = 1 << 20, kGiB = 1 << 30;
  const auto size = static_cast<double>(bytes);
  return size < kMiB   ? fmt::format("{:.1f} KiB", size / kKiB)
         : size < kGiB ? fmt::format("{:.1f} MiB", size / kMiB)
                       : fmt::format("{:.1f} GiB", size / kGiB);
}

void check_redundant_experts(const Job& job, const ModelConfig& config, int world_size, Faults& faults) {
  const int64_t wanted = job.parallel.redundant_experts;
  if (wanted == 0) return;
  const char* const key = "parallel.redundant_experts";
  const int64_t ranks = world_size / job.parallel.replicas;  // of an engine, where the layout comes out
  if (job.device == Job::DeviceKind::null)
    faults.add(key, "device: null has no experts");
  else if (config.num_experts == 0)
    faults.add(key, "the model has no experts");
  else if (ranks == 1)
    faults.add(key, "an engine of one rank has all experts already");
  else if (const int64_t most = config.num_experts * (ranks - 1); wanted > most)
    faults.add(key,
               fmt::format("{} copies: each of the {} ranks of an engine can hold each of the {} experts "
                           "once, which leaves room for {}",
                           wanted, ranks, config.num_experts, most));
}

}  // namespace

void check_paths(const Job& job, const std::string& job_path) {
  Faults faults;
  Paths read;
  if (!job.input.random) {
    check_readable("input.path", job.input.path, faults);
    read.emplace_back("input.path", job.input.path);
  }
  if (!job_path.empty()) read.emplace_back("the job's own file", job_path);
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(job.model.path, ignored))
    read.emplace_back("a file of the model", entry.path().string());

  Paths taken;
  for (const auto& [key, path] : written_files(job)) {
    check_writable(key, path, faults);
    check_report(key, path, faults);
    for (const Paths& others : {read, taken})
      for (const auto& [what, other] : others)
        if (is_same_file(path, other)) faults.add(key, fmt::format("{} is {} too", path, what));
    taken.emplace_back(key, path);
  }
  check_names_on_the_way(written_files(job), faults);
  faults.throw_if_any();
}

std::vector<std::string> missing_output_directories(const Job& job) {
  std::vector<std::string> missing;
  std::error_code ignored;
  for (const auto& [key, path] : written_files(job)) {
    const std::string directory = directory_of(path).string();
    if (!fs::exists(directory, ignored) &&
        std::find(missing.begin(), missing.end(), directory) == missing.end())
      missing.push_back(directory);
  }
  return missing;
}

void check_layout(const Job& job, const ModelConfig& config, int world_size, const std::string& command) {
  Faults faults;
  const int tensor = job.parallel.tensor;
  try {
    make_layout(world_size, tensor, job.parallel.data, job.parallel.replicas);
  } catch (const BadInput& error) {
    const Job::Parallel& layout = job.parallel;
    faults.add(command.empty()
                   ? error.what()
                   : fmt::format("{}; start it with: mpirun -n {} {}", error.what(),
                                 layout.tensor * std::max(layout.data, 1) * layout.replicas, command));
  }
  if ((tensor & (tensor - 1)) != 0)
    faults.add("parallel.tensor", fmt::format("{} is no power of two", tensor));
  if (config.num_attention_heads % tensor != 0)
    faults.add("parallel.tensor", fmt::format("{} does not divide the model's {} attention heads", tensor,
                                              config.num_attention_heads));
  if (config.num_key_value_heads % tensor != 0 && tensor % config.num_key_value_heads != 0)
    faults.add("parallel.tensor",
               fmt::format("{} and the model's {} key/value heads: one must divide the other", tensor,
                           config.num_key_value_heads));
  if (const int32_t chunks = output_chunks(config); tensor > chunks)
    faults.add("parallel.tensor",
               config.quantization.is_fp8()
                   ? fmt::format("{} would cut a block of {} of the FP8 weights of o_proj, which has {} "
                                 "columns: set it to {} or less",
                                 tensor, kScaleGroup, config.num_attention_heads * config.head_dim, chunks)
                   : fmt::format("{} is more than the {} parts into which the sum of o_proj is cut: set it "
                                 "to {} or less",
                                 tensor, chunks, chunks));
  if (config.has_delta_nets() && config.delta.num_key_heads % tensor != 0)
    faults.add("parallel.tensor", fmt::format("{} does not divide the model's {} linear_num_key_heads",
                                              tensor, config.delta.num_key_heads));
  else if (config.has_delta_nets() && tensor > delta_output_chunks(config))
    faults.add(
        "parallel.tensor",
        fmt::format("{} is more than the {} parts into which the sum of linear_attn.out_proj is cut: set "
                    "it to {} or less",
                    tensor, delta_output_chunks(config), delta_output_chunks(config)));
  check_redundant_experts(job, config, world_size, faults);
  // One more: nothing is predicted from a sequence's last token.
  if (job.model.max_model_len > most_positions(config) + 1)
    faults.add("model.max_model_len",
               fmt::format("{} is more than the model's {} positions and the token behind them",
                           job.model.max_model_len, most_positions(config)));
  if (const Contradiction wrong = outside_vocabulary(job.sampling, config.vocab_size); !wrong.what.empty())
    faults.add("sampling." + wrong.option, wrong.what);
  faults.throw_if_any();
}

OutputEstimate estimate_output(const Job& job, uint64_t num_rows, size_t routed_bytes) {
  // Text: about 4 bytes a token. A JSONL number is up to 7 digits for a token, 12 for a log-probability.
  const auto top = static_cast<double>(std::max(job.sampling.draw.logprobs, 0));
  const double logprob = job.sampling.draw.logprobs >= 0 ? 1 : 0;
  const double hdf5_token = 4 + 4 + 4 * logprob + 8 * top + static_cast<double>(routed_bytes);
  const double jsonl_token = 4 + 8 + 14 * logprob + 24 * top;
  constexpr double kRow = 64, kSegmentAndMerged = 2;

  const auto bytes = [&](double tokens, double token_bytes) {
    return static_cast<double>(num_rows) * (kRow + tokens * token_bytes);
  };
  double most = job.sampling.max_tokens;
  double least = job.sampling.ignore_eos && job.sampling.stop.empty() ? most : job.sampling.min_tokens;
  if (job.input.random) least = most = static_cast<double>(job.input.random->output_len);
  least *= job.sampling.n, most *= job.sampling.n;
  OutputEstimate estimate;
  estimate.least_hdf5 = static_cast<uint64_t>(kSegmentAndMerged * bytes(least, hdf5_token));
  estimate.most_hdf5 = static_cast<uint64_t>(kSegmentAndMerged * bytes(most, hdf5_token));
  if (!job.output.jsonl.empty()) {
    estimate.least_jsonl = static_cast<uint64_t>(bytes(least, jsonl_token));
    estimate.most_jsonl = static_cast<uint64_t>(bytes(most, jsonl_token));
  }
  return estimate;
}

std::vector<std::string> check_disk(const Job& job, uint64_t num_rows, uint64_t sealed, size_t routed_bytes) {
  struct Need {
    std::string directory;
    uint64_t free_bytes = 0, least = 0, most = 0;
  };
  const OutputEstimate estimate = estimate_output(job, num_rows, routed_bytes);
  std::map<dev_t, Need> needs;  // both outputs may be on one file system
  const auto add = [&](const std::string& path, uint64_t least, uint64_t most) {
    if (path.empty()) return;
    const Room room = room_at(path);
    Need& need =
        needs.try_emplace(room.device, Need{directory_of(path).string(), room.free_bytes}).first->second;
    need.least += least;
    need.most += most;
  };
  const auto left = [&](uint64_t bytes) { return bytes - std::min(bytes, sealed); };
  add(job.output.path, left(estimate.least_hdf5), left(estimate.most_hdf5));
  add(job.output.jsonl, estimate.least_jsonl, estimate.most_jsonl);

  Faults faults;
  std::vector<std::string> warnings;
  for (const auto& [device, need] : needs) {
    const std::string found = fmt::format("{} has {} free", need.directory, size_text(need.free_bytes));
    if (need.free_bytes < need.least)
      faults.add(fmt::format("{}; the {} answers take at least {}", found, num_rows, size_text(need.least)));
    else if (need.free_bytes < need.most)
      warnings.push_back(fmt::format("{}; the answers take up to {} if each has sampling.max_tokens: {}",
                                     found, size_text(need.most), job.sampling.max_tokens));
  }
  faults.throw_if_any();
  return warnings;
}

}  // namespace moerun
