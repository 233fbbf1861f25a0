#pragma once
#include <cstdint>
#include <ctime>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "io/content_sums.h"
#include "moerun/io.h"
#include "moerun/job.h"

namespace moerun {

/// What the check before a run found.
struct InputSummary {
  uint64_t num_rows = 0;
  bool openai = false;   ///< OpenAI batch lines
  std::string checksum;  ///< SHA-256 (hex) of the file's bytes, of an HDF5 input's rows, or of a random
                         ///< input's description
  std::shared_ptr<const ContentSums> contents;  ///< of what was checked; null for a random input
  std::vector<std::string> warnings;            ///< sentences for the user
  /// Of the rows with messages: ChatTemplate::checksum() (empty: there are none), and the dates that the
  /// template was told, by the format it asked with.
  std::string chat_template;
  std::map<std::string, std::string> template_dates;
  bool alike = false;                    ///< more than a few rows begin as others do
  std::vector<uint64_t> duplicate_rows;  ///< with `on_error: row`: rows whose id an earlier row has
};

/// Reads the whole input once, with constant memory (but about 50 bytes an id), and checks every row. Faults
/// are collected into one BadInput: "FILE:LINE: message" (HDF5: "FILE: row N: message"). With
/// `input.on_error: row` bad rows are only counted, in a warning; a file that cannot be read or has no rows
/// is a fault anyway.
///
/// Knows the model's folder from the job: rows of text need its tokenizer, messages its chat template, and
/// OpenAI batch lines must name it. `start`: the job's, for chat templates that ask for the date.
InputSummary check_input(const Job& job, int64_t vocab_size, std::time_t start);

/// The input as a stream of rows. `summary` is check_input's of the same job; next() throws Error (a fault)
/// before it hands out a row of a file that is not what was checked. seek() costs nothing for HDF5 and random
/// inputs, and the reading of the rows before for JSONL and text.
std::unique_ptr<RecordSource> open_input(const Job& job, int64_t vocab_size, const InputSummary& summary);

}  // namespace moerun
