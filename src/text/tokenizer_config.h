#pragma once
#include <string>
#include <vector>

#include "text/tokenizer_file.h"

namespace moerun {

/// What tokenizer_config.json says of tokens beside tokenizer.json, as transformers 5.24 takes it: a token of
/// `added_tokens_decoder`, a named special token (`eos_token`, ...) or an extra one that tokenizer.json has
/// not is added behind its own; flags of `added_tokens_decoder` count where both give them, and a token is
/// special where either says so. Changes `file` and returns a sentence for each change. (`add_bos_token` has
/// no say there: the post-processor of tokenizer.json has.) Throws BadInput that names both files where they
/// give a token different ids, which transformers settles in silence.
std::vector<std::string> apply_tokenizer_config(const std::string& config_path,
                                                const std::string& tokenizer_path, TokenizerFile& file);

}  // namespace moerun
