#include "io/result_lines.h"

#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "io/result_jsonl.h"
#include "text/checksum.h"

namespace moerun {

LineWriter::LineWriter(const Manifest& run) {
  if (!run.openai) return;
  openai_ =
      OpenAiLines{.model = run.model, .created = run.created, .system_fingerprint = run.system_fingerprint};
  if (std::filesystem::exists(run.model + "/tokenizer.json"))
    openai_->tokenizer = std::make_shared<const Tokenizer>(Tokenizer::load(run.model));
}

void LineWriter::append(std::span<const RowResult> rows, std::string& out) const {
  if (openai_)
    append_openai_line(rows, *openai_, out);
  else
    append_result_line(rows.front(), out);
}

std::string system_fingerprint_of(const Provenance& provenance) {
  constexpr size_t kDigits = 16;
  const std::string sum =
      sha256_hex(fmt::format("{}\n{}\n{}\n{}\n{}\n{}\n", provenance.program_version, provenance.git_revision,
                             provenance.model_checksum, provenance.weights_checksum,
                             provenance.tokenizer_checksum, provenance.device));
  return fmt::format("moerun-{}-{}", provenance.program_version, sum.substr(0, kDigits));
}

}  // namespace moerun
