#include "job/job_fields.h"

#include <charconv>

#include "comm/exchange_table.h"
#include "job/sampling_fields.h"

namespace moerun {
namespace {

constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();
constexpr int64_t kInt64Max = std::numeric_limits<int64_t>::max();
constexpr int64_t kMostRanks = 65536;
const char kAuto[] = "auto";

std::vector<std::pair<std::string, Job::Parallel::AllToAll>> exchange_names() {
  std::vector<std::pair<std::string, Job::Parallel::AllToAll>> names{
      {kAuto, Job::Parallel::AllToAll::automatic}};
  for (const ExchangeBackend& backend : exchange_backends())
    names.emplace_back(backend.name, backend.all_to_all);
  return names;
}

std::string read_block_size(const Json& value, Job& job) {
  int64_t size = 0;
  if (!IntegerRange{1, 4096}.read(value, size) || (size & (size - 1)) != 0)
    return must_be("a power of two from 1 to 4096", value);
  job.memory.block_size = static_cast<int>(size);
  return "";
}

/// "H:MM:SS" or "MM:SS" in seconds; false when it is neither.
bool read_clock(const std::string& text, double& seconds) {
  seconds = 0;
  int parts = 0;
  for (const char *at = text.data(), *end = at + text.size(); at <= end; ++at, ++parts) {
    int64_t part = 0;
    const auto [stop, error] = std::from_chars(at, end, part);
    if (error != std::errc() || part < 0 || part > 1'000'000 || *at == '+' ||
        (parts > 0 && (part > 59 || stop - at != 2)))
      return false;
    seconds = seconds * 60 + static_cast<double>(part);
    if (stop != end && *stop != ':') return false;
    at = stop;
  }
  return parts == 2 || parts == 3;
}

template <class Get>
Field<Job> duration(std::string name, Get get) {
  return {std::move(name),
          [=](const Json& value, Job& job) {
            double seconds = 0;
            const bool good = value.is_string() ? read_clock(value.get<std::string>(), seconds)
                                                : NumberRange{0, 1e9}.read(value, seconds);
            if (!good) return must_be("seconds or \"H:MM:SS\"", value);
            get(job) = seconds;
            return std::string();
          },
          [=](const Job& job) { return Json(get(job)); }};
}

std::vector<Field<Job>> make_fields() {
  using Model = Job::Model;
  using Device = Job::DeviceKind;
  using OnError = Job::Input::OnError;
  using TruncatePrompt = Job::Input::TruncatePrompt;
  using OptionalDType = std::optional<DType>;
  std::vector<Field<Job>> fields{
      text_or_none<Job>(
          "model.path", [](auto& j) -> auto& { return j.model.path; }),
      choice<Job>(
          "model.dtype", [](auto& j) -> auto& { return j.model.dtype; },
          std::vector<std::pair<std::string, OptionalDType>>{{"auto", std::nullopt},
                                                             {"float16", DType::float16},
                                                             {"half", DType::float16},
                                                             {"bfloat16", DType::bfloat16},
                                                             {"float32", DType::float32}}),
      choice<Job>(
          "model.load_format", [](auto& j) -> auto& { return j.model.load_format; },
          std::vector<std::pair<std::string, Model::LoadFormat>>{{"auto", Model::LoadFormat::automatic},
                                                                 {"dummy", Model::LoadFormat::dummy}}),
      choice<Job>(
          "model.verify_weights", [](auto& j) -> auto& { return j.model.verify_weights; },
          std::vector<std::pair<std::string, Model::VerifyWeights>>{
              {"full", Model::VerifyWeights::full}, {"sampled", Model::VerifyWeights::sampled}}),
      integer_or<Job>(
          "model.max_model_len", [](auto& j) -> auto& { return j.model.max_model_len; }, {1, kInt32Max},
          kAuto, 0),
      integer<Job>("parallel.tensor", [](auto& j) -> auto& { return j.parallel.tensor; }, {1, kMostRanks}),
      integer_or<Job>(
          "parallel.data", [](auto& j) -> auto& { return j.parallel.data; }, {1, kMostRanks}, kAuto, 0),
      integer<Job>("parallel.replicas", [](auto& j) -> auto& { return j.parallel.replicas; },
                   {1, kMostRanks}),
      choice<Job>(
          "parallel.all_to_all", [](auto& j) -> auto& { return j.parallel.all_to_all; }, exchange_names()),
      integer<Job>("parallel.redundant_experts",
                   [](auto& j) -> auto& { return j.parallel.redundant_experts; }, {0, kMostRanks}),
      boolean<Job>(
          "parallel.allow_shared_gpu", [](auto& j) -> auto& { return j.parallel.allow_shared_gpu; }),
      choice<Job>(
          "device", [](auto& j) -> auto& { return j.device; },
          std::vector<std::pair<std::string, Device>>{{"auto", Device::automatic},
                                                      {"cpu", Device::cpu},
                                                      {"cuda", Device::cuda},
                                                      {"null", Device::null}}),
      number<Job>("null_step_ms", [](auto& j) -> auto& { return j.null_step_ms; }, {0, 60000}),
      number<Job>("memory.gpu_memory_utilization",
                  [](auto& j) -> auto& { return j.memory.gpu_memory_utilization; }, {0, 1, true}),
      {"memory.block_size", read_block_size, [](const Job& j) { return Json(j.memory.block_size); }},
      integer_or<Job>(
          "memory.num_blocks", [](auto& j) -> auto& { return j.memory.num_blocks; }, {1, kInt32Max}, kAuto,
          0),
      choice<Job>(
          "memory.kv_cache_dtype", [](auto& j) -> auto& { return j.memory.kv_cache_dtype; },
          std::vector<std::pair<std::string, OptionalDType>>{{"auto", std::nullopt}, {"fp8", DType::e4m3}}),
      number<Job>("memory.cpu_kv_gib", [](auto& j) -> auto& { return j.memory.cpu_kv_gib; },
                  {0, 65536, true}),
      number<Job>("memory.swap_space_gib", [](auto& j) -> auto& { return j.memory.swap_space_gib; },
                  {0, 65536}),
      boolean<Job>(
          "enforce_eager", [](auto& j) -> auto& { return j.enforce_eager; }),
      integer_or<Job>(
          "scheduler.max_num_seqs", [](auto& j) -> auto& { return j.scheduler.max_num_seqs; }, {1, 65536},
          kAuto, 0),
      integer_or<Job>(
          "scheduler.max_num_batched_tokens",
          [](auto& j) -> auto& { return j.scheduler.max_num_batched_tokens; }, {1, 1 << 20}, kAuto, 0),
      choice<Job>(
          "scheduler.prefix_sharing", [](auto& j) -> auto& { return j.scheduler.prefix_sharing; },
          std::vector<std::pair<std::string, bool>>{{"auto", true}, {"off", false}}),
      text_or_none<Job>(
          "input.path", [](auto& j) -> auto& { return j.input.path; }),
      integer<Job>("input.limit", [](auto& j) -> auto& { return j.input.limit; }, {0, kInt64Max}),
      choice<Job>(
          "input.on_error", [](auto& j) -> auto& { return j.input.on_error; },
          std::vector<std::pair<std::string, OnError>>{{"fail", OnError::fail}, {"row", OnError::row}}),
      boolean<Job>(
          "input.allow_external", [](auto& j) -> auto& { return j.input.allow_external; }),
      choice<Job>(
          "input.truncate_prompt", [](auto& j) -> auto& { return j.input.truncate_prompt; },
          std::vector<std::pair<std::string, TruncatePrompt>>{{"none", TruncatePrompt::none},
                                                              {"left", TruncatePrompt::left}}),
  };
  using SamplingDefaults = Job::SamplingDefaults;
  fields.push_back(choice<Job>(
      "sampling.defaults", [](auto& j) -> auto& { return j.sampling_defaults; },
      std::vector<std::pair<std::string, SamplingDefaults>>{{"none", SamplingDefaults::none},
                                                            {"model", SamplingDefaults::model}}));
  for (const Field<SamplingParams>& field : sampling_fields())
    fields.push_back({"sampling." + field.name,
                      [&field](const Json& value, Job& job) { return field.read(value, job.sampling); },
                      [&field](const Job& job) { return field.write(job.sampling); }, field.nested});
  for (Field<Job>& field : std::vector<Field<Job>>{
           text_or_none<Job>(
               "output.path", [](auto& j) -> auto& { return j.output.path; }),
           text_or_none<Job>(
               "output.jsonl", [](auto& j) -> auto& { return j.output.jsonl; }),
           text_or_none<Job>(
               "output.errors", [](auto& j) -> auto& { return j.output.errors; }),
           boolean<Job>(
               "output.routed_experts", [](auto& j) -> auto& { return j.output.routed_experts; }),
           text_or_none<Job>(
               "report.path", [](auto& j) -> auto& { return j.report.path; }),
           text_or_none<Job>(
               "report.html", [](auto& j) -> auto& { return j.report.html; }),
           text_or_none<Job>(
               "report.prometheus", [](auto& j) -> auto& { return j.report.prometheus; }),
           duration(
               "limits.time", [](auto& j) -> auto& { return j.limits.time_s; }),
           duration(
               "limits.grace", [](auto& j) -> auto& { return j.limits.grace_s; }),
       })
    fields.push_back(std::move(field));
  return fields;
}

}  // namespace

const std::vector<Field<Job>>& job_fields() {
  static const std::vector<Field<Job>> fields = make_fields();
  return fields;
}

const std::vector<Field<RandomInput>>& random_input_fields() {
  using R = RandomInput;
  static const std::vector<Field<R>> fields{
      integer<R>("input.random.num_prompts", [](auto& r) -> auto& { return r.num_prompts; }, {1, kInt64Max}),
      integer<R>("input.random.input_len", [](auto& r) -> auto& { return r.input_len; }, {1, kInt32Max}),
      integer<R>("input.random.output_len", [](auto& r) -> auto& { return r.output_len; }, {1, kInt32Max}),
      number<R>("input.random.range_ratio", [](auto& r) -> auto& { return r.range_ratio; }, {0, 1}),
      seed<R>(
          "input.random.seed", [](auto& r) -> auto& { return r.seed; }),
  };
  return fields;
}

}  // namespace moerun
