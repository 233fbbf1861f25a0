#pragma once
#include <string>

namespace moerun {

/// `moerun quantize IN OUT`: makes of a model's folder in 16 or 32 bits one whose linear layers are in
/// block-scaled FP8, as Qwen and DeepSeek publish them (quant_method fp8, blocks of 128 × 128). OUT must not
/// be there; it gets its name when it is whole, so a run that was killed leaves OUT.partial alone, which the
/// next one begins anew. Returns the program's exit code; throws Error.
int quantize_main(const std::string& in, const std::string& out);

}  // namespace moerun
