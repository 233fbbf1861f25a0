#include <algorithm>
#include <array>

#include "tests/fuzz/harness.h"

namespace moerun::fuzz {

void read_rows(std::string_view bytes);
void read_openai_rows(std::string_view bytes);
void read_jsonl(std::string_view bytes);
void read_text(std::string_view bytes);
void read_hdf5(std::string_view bytes);
void read_hdf5_block(std::string_view bytes);
void read_hdf5_shapes(std::string_view bytes);
void look_at_output_attributes(std::string_view bytes);
void read_output(std::string_view bytes);
void read_safetensors(std::string_view bytes);
void read_index_file(std::string_view bytes);
void read_config(std::string_view bytes);
void read_generation_config(std::string_view bytes);
void read_tokenizer_file(std::string_view bytes);
void read_model_folder(std::string_view bytes);
void encode_text(std::string_view bytes);
void read_tokenize_lines(std::string_view bytes);
void read_chat_template(std::string_view bytes);
void read_chat_request(std::string_view bytes);
void read_job_file(std::string_view bytes);
void read_overrides(std::string_view bytes);
void read_ledger(std::string_view bytes);
void read_segment(std::string_view bytes);
void read_packed_answer(std::string_view bytes);
void resume_run_directory(std::string_view bytes);
void read_measured(std::string_view bytes);
void read_messages_of_ranks(std::string_view bytes);
void read_watchdog_messages(std::string_view bytes);
void read_chat_answer(std::string_view bytes);

const std::vector<Harness>& harnesses() {
  static const std::vector<Harness> table = {
      {"rows", read_rows},
      {"openai_rows", read_openai_rows},
      {"jsonl", read_jsonl},
      {"text", read_text},
      {"hdf5", read_hdf5},
      {"hdf5_block", read_hdf5_block},
      {"hdf5_shapes", read_hdf5_shapes},
      {"output_attributes", look_at_output_attributes},
      {"output", read_output},
      {"safetensors", read_safetensors},
      {"index", read_index_file},
      {"config", read_config},
      {"generation_config", read_generation_config},
      {"tokenizer_file", read_tokenizer_file},
      {"model_folder", read_model_folder},
      {"encode", encode_text},
      {"tokenize", read_tokenize_lines},
      {"chat_template", read_chat_template},
      {"chat_request", read_chat_request},
      {"job", read_job_file},
      {"overrides", read_overrides},
      {"ledger", read_ledger},
      {"segment", read_segment},
      {"packed_answer", read_packed_answer},
      {"run_directory", resume_run_directory},
      {"measured", read_measured},
      {"messages", read_messages_of_ranks},
      {"watchdog", read_watchdog_messages},
      {"chat_answer", read_chat_answer},
  };
  return table;
}

void run(const Harness& harness, std::string_view bytes) {
  try {
    harness.read(bytes);
  } catch (const Error& error) {
    // It was refused. The HDF5 library may take the process that reads down with it; but what a sanitizer
    // reports in there is a finding (tests/fuzz/run sets the exit code). Bytes of other harnesses may spell
    // it.
    const bool reads_hdf5 = harness.name.starts_with("hdf5") || harness.name.starts_with("output");
    check(!reads_hdf5 ||
              std::string_view(error.what()).find("dies of it (exit code 86)") == std::string_view::npos,
          "a sanitizer reports nothing in the process that reads HDF5");
  }
}

}  // namespace moerun::fuzz
