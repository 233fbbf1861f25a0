#include "io/result_lines.h"

#include <fmt/format.h>

#include <filesystem>
#include <memory>

#include "io/fingerprint.h"
#include "io/result_jsonl.h"
#include "moerun/error.h"
#include "text/checksum.h"

namespace moerun {

LineWriter::LineWriter(const Manifest& run) {
  if (!run.openai) return;
  openai_ =
      OpenAiLines{.model = run.model, .created = run.created, .system_fingerprint = run.system_fingerprint};
  const std::string path = run.model + "/tokenizer.json";
  if (std::filesystem::exists(path))
    openai_->tokenizer = std::make_shared<const Tokenizer>(Tokenizer::load(run.model));
  const std::string* const began_with = find(run.fingerprint, "tokenizer");
  if (began_with != nullptr && *began_with != (openai_->tokenizer ? openai_->tokenizer->checksum() : ""))
    throw Error(fmt::format("{} is not what it was when the job began: put back what it was", path));
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
