#pragma once
#include <cstdint>
#include <optional>
#include <set>
#include <string>

#include "moerun/dtype.h"
#include "moerun/sampling.h"

namespace moerun {

/// Synthetic prompts for throughput runs (`input.random`). Lengths are drawn uniformly from
/// [len·(1−range_ratio), len·(1+range_ratio)]; token ids uniformly from the vocabulary.
struct RandomInput {
  int64_t num_prompts = 0, input_len = 0, output_len = 0;
  double range_ratio = 0;
  uint64_t seed = 0;

  bool operator==(const RandomInput&) const = default;
};

/// Which keys of a job were given, by their full names, whatever they say. Two jobs that say the same are
/// equal, however they were written.
struct GivenKeys {
  std::set<std::string, std::less<>> names;
  bool operator==(const GivenKeys& /*other*/) const { return true; }
};

/// A job file with its overrides, checked for spelling, types and ranges (src/job). Keys are documented in
/// docs/job-keys.md. `auto` is an empty optional.
struct Job {
  struct Model {
    std::string path;
    std::optional<DType> dtype;  ///< auto: the checkpoint's on CUDA, float32 on the CPU
    enum class LoadFormat { automatic, dummy } load_format = LoadFormat::automatic;
    /// What of the weights is in the fingerprint that a resumed job compares.
    enum class VerifyWeights { full, sampled } verify_weights = VerifyWeights::full;
    int64_t max_model_len = 0;  ///< 0: max_position_embeddings
    bool operator==(const Model&) const = default;
  } model;
  struct Parallel {
    int tensor = 1;
    int data = 0;  ///< 0: what the number of ranks leaves
    int replicas = 1;
    enum class AllToAll { automatic, mpi, nccl, p2p } all_to_all = AllToAll::automatic;
    int redundant_experts = 0;      ///< copies of busy experts that an engine has room for in each layer
    bool allow_shared_gpu = false;  ///< several ranks on one GPU, for testing
    bool operator==(const Parallel&) const = default;
  } parallel;
  enum class DeviceKind { automatic, cpu, cuda, null } device = DeviceKind::automatic;
  double null_step_ms = 0;  ///< device: null pretends that a step takes this long
  struct Memory {
    double gpu_memory_utilization = 0.9;
    int block_size = 64;     ///< tokens a key/value block
    int64_t num_blocks = 0;  ///< 0: what memory allows (CPU: what max_num_seqs can use, within cpu_kv_gib)
    double cpu_kv_gib = 2;   ///< room for keys and values a rank on the CPU device
    std::optional<DType> kv_cache_dtype;  ///< auto: as activations; else e4m3
    double swap_space_gib = 4;  ///< of host memory a rank, for keys and values of preempted sequences
    bool operator==(const Memory&) const = default;
  } memory;
  bool enforce_eager = false;  ///< no CUDA graphs
  struct Scheduler {
    int max_num_seqs = 0;            ///< 0: auto, by device and memory
    int max_num_batched_tokens = 0;  ///< 0: auto (8192 on CUDA, 512 on the CPU)
    bool prefix_sharing = true;      ///< auto: prompts that begin alike share keys and values
    bool operator==(const Scheduler&) const = default;
  } scheduler;
  struct Input {
    std::string path;                   ///< .jsonl, .h5, .txt
    int64_t limit = 0;                  ///< 0: all rows
    std::optional<RandomInput> random;  ///< instead of path
    enum class OnError { fail, row } on_error = OnError::fail;
    bool allow_external = false;  ///< an HDF5 input may have data in other files
    /// Of prompts that leave no room for their answers.
    enum class TruncatePrompt { none, left } truncate_prompt = TruncatePrompt::none;
    bool operator==(const Input&) const = default;
  } input;
  SamplingParams sampling;
  /// Whether generation_config.json says what the job leaves out (`sampling.defaults`).
  enum class SamplingDefaults { none, model } sampling_defaults = SamplingDefaults::none;
  struct Output {
    std::string path;             ///< .h5
    std::string jsonl;            ///< empty: none
    std::string errors;           ///< of rows with an error, instead of `jsonl`; empty: they are there
    bool routed_experts = false;  ///< in `path`, the experts that each token was routed to
    bool operator==(const Output&) const = default;
  } output;
  struct Report {
    std::string path;        ///< JSON; empty: none
    std::string html;        ///< the same as a page; empty: none
    std::string prometheus;  ///< how the job stands, for a node exporter; empty: none
    bool operator==(const Report&) const = default;
  } report;
  struct Limits {
    double time_s = 0;    ///< 0: none (Slurm's own end time counts when it is known)
    double grace_s = 60;  ///< how long running sequences may go on after the limit or SIGUSR1
    bool operator==(const Limits&) const = default;
  } limits;
  GivenKeys given;   ///< in the file or on the command line; every other key has its default
  std::string yaml;  ///< the job as YAML after overrides, for provenance

  bool operator==(const Job&) const = default;
};

inline bool truncates_prompts(const Job& job) {
  return job.input.truncate_prompt == Job::Input::TruncatePrompt::left;
}

}  // namespace moerun
