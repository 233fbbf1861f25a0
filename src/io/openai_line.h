#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "moerun/record.h"
#include "text/tokenizer.h"

namespace moerun {

/// What batch response lines say beside the answer.
struct OpenAiLines {
  std::string model;                           ///< of a row that does not say which one it asked for
  int64_t created = 0;                         ///< seconds since 1970: when the run began
  std::string system_fingerprint;              ///< empty: null
  std::shared_ptr<const Tokenizer> tokenizer;  ///< gives the texts of tokens; null: the folder has none
};

/// One line of an OpenAI batch output without its newline, of the rows that it was read as (LinePart), whose
/// answers are its choices in their order; appends to `out`. A line with an error, of whatever endpoint, has
/// `response: null` and `error`. Log-probabilities carry each token's text and bytes; a token that is no
/// UTF-8 by itself has the text "bytes:\\xe2\\x80", and one without a text (no tokenizer; a vocabulary padded
/// beyond it) "token_id:N" and no bytes. `text_offset` counts characters from the beginning of the answer's
/// text, in which special tokens do not stand. Format:
/// https://platform.openai.com/docs/api-reference/batch/request-output
void append_openai_line(std::span<const RowResult> rows, const OpenAiLines& lines, std::string& out);

}  // namespace moerun
