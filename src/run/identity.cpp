#include "run/identity.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>

#include "base/version.h"
#include "job/sampling_fields.h"
#include "text/checksum.h"

namespace moerun {

std::string name_of(Job::DeviceKind kind) {
  switch (kind) {
    case Job::DeviceKind::automatic:
      return "auto";
    case Job::DeviceKind::cpu:
      return "cpu";
    case Job::DeviceKind::cuda:
      return "cuda";
    case Job::DeviceKind::null:
      return "null";
  }
  return "?";
}

namespace {

/// Some of a tensor's bytes, from its middle.
std::string_view sample_of(const StoredTensor& tensor) {
  constexpr size_t kMost = 512;
  size_t bytes = size_of(tensor.dtype);
  for (const int64_t size : tensor.shape) bytes *= static_cast<size_t>(size);
  const size_t taken = std::min(bytes, kMost);
  return {static_cast<const char*>(tensor.data) + (bytes - taken) / 2, taken};
}

/// Asks for the pages under `bytes`, without waiting for them.
void read_ahead(std::string_view bytes) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const size_t before = reinterpret_cast<uintptr_t>(bytes.data()) % page;
  // Advice alone: what fails here is read when it is touched.
  static_cast<void>(madvise(const_cast<char*>(bytes.data() - before), bytes.size() + before, MADV_WILLNEED));
}

std::string weights_of(const CheckedJob& checked) {
  return checked.job.model.load_format == Job::Model::LoadFormat::dummy ? "dummy" : checked.weights_checksum;
}

}  // namespace

std::string sampled_checksum(const Checkpoint& checkpoint) {
  // One after the other, the samples of a large checkpoint on a file server would take many round trips.
  for (const auto& [name, tensor] : checkpoint.tensors()) read_ahead(sample_of(tensor));
  std::string text = fmt::format("{}\n", checkpoint.bytes());
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    const std::string file = tensor.file.substr(tensor.file.rfind('/') + 1);
    text += fmt::format("{} {} [{}] {}\n", name, name_of(tensor.dtype), fmt::join(tensor.shape, ","), file);
    text += sample_of(tensor);
  }
  return sha256_hex(text);
}

Fingerprint fingerprint_of(const CheckedJob& checked) {
  const Job& job = checked.job;
  Fingerprint out{{"moerun", version()},
                  {"input", checked.input.checksum},
                  {"input rows", std::to_string(checked.input.num_rows)},
                  {"input.on_error", job.input.on_error == Job::Input::OnError::row ? "row" : "fail"},
                  {"input.truncate_prompt", truncates_prompts(job) ? "left" : "none"},
                  {"model config", checked.config.checksum},
                  {"end-of-sequence ids", fmt::format("{}", fmt::join(checked.config.eos_token_ids, ","))},
                  {"model weights", weights_of(checked)},
                  {"tokenizer", checked.tokenizer_checksum},
                  {"model.max_model_len", std::to_string(job.model.max_model_len)},
                  {"device", name_of(job.device)},
                  {"dtype", std::string(name_of(checked.dtype))},
                  {"output.jsonl", job.output.jsonl}};
  if (!checked.input.chat_template.empty()) out.emplace_back("chat template", checked.input.chat_template);
  if (job.memory.kv_cache_dtype)
    out.emplace_back("memory.kv_cache_dtype", name_of(*job.memory.kv_cache_dtype));
  for (const auto& [format, date] : checked.input.template_dates)
    out.emplace_back(
        fmt::format("date in the prompts (strftime_now(\"{}\"); SOURCE_DATE_EPOCH sets it)", format), date);
  if (job.output.routed_experts) out.emplace_back("output.routed_experts", "true");
  if (!job.output.errors.empty()) out.emplace_back("output.errors", job.output.errors);
  if (job.sampling_defaults == Job::SamplingDefaults::model)
    out.emplace_back("sampling.defaults", checked.sampling_defaults);
  for (const auto& field : sampling_fields())
    out.emplace_back("sampling." + field.name, field.write(job.sampling).dump());
  return out;
}

Provenance provenance_of(const CheckedJob& checked) {
  return {.job_yaml = checked.job.yaml,
          .program_version = version(),
          .git_revision = git_revision(),
          .model_checksum = checked.config.checksum,
          .tokenizer_checksum = checked.tokenizer_checksum,
          .weights_checksum = weights_of(checked),
          .layout = layout_text(checked.layout),
          .device = name_of(checked.job.device),
          .sampling_defaults = checked.sampling_defaults,
          .routed = checked.routed(),
          .seed = checked.job.sampling.draw.seed};
}

}  // namespace moerun
