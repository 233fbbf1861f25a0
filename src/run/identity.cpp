#include "run/identity.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "device/factory.h"
#include "job/sampling_fields.h"
#include "text/checksum.h"
#include "version.h"

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

std::string checksum_of(const Checkpoint& checkpoint) {
  std::string text = fmt::format("{}\n", checkpoint.bytes());
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    const std::string file = tensor.file.substr(tensor.file.rfind('/') + 1);
    text += fmt::format("{} {} [{}] {}\n", name, name_of(tensor.dtype), fmt::join(tensor.shape, ","), file);
  }
  return sha256_hex(text);
}

std::vector<std::string> resolved_overrides(const Job& job) {
  return {fmt::format("device={}", name_of(job.device)),
          fmt::format("model.max_model_len={}", job.model.max_model_len),
          fmt::format("scheduler.max_num_seqs={}", job.scheduler.max_num_seqs),
          fmt::format("scheduler.max_num_batched_tokens={}", job.scheduler.max_num_batched_tokens)};
}

Fingerprint fingerprint_of(const CheckedJob& checked) {
  const Job& job = checked.job;
  const bool dummy = job.model.load_format == Job::Model::LoadFormat::dummy;
  Fingerprint out{
      {"moerun", version()},
      {"input", checked.input.checksum},
      {"input rows", std::to_string(checked.input.num_rows)},
      {"input.on_error", job.input.on_error == Job::Input::OnError::row ? "row" : "fail"},
      {"model config", checked.config.checksum},
      {"end-of-sequence ids", fmt::format("{}", fmt::join(checked.config.eos_token_ids, ","))},
      {"model weights", dummy ? "dummy" : checked.checkpoint_checksum},
      {"tokenizer", checked.tokenizer_checksum},
      {"model.max_model_len", std::to_string(job.model.max_model_len)},
      {"device", name_of(job.device)},
      {"dtype", std::string(name_of(resolve_dtype(job.device, job.model.dtype, checked.config.dtype)))},
      {"output.jsonl", job.output.jsonl}};
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
          .layout = layout_text(checked.layout),
          .device = name_of(checked.job.device),
          .seed = checked.job.sampling.seed};
}

}  // namespace moerun
