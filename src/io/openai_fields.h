#pragma once
#include <string>

#include "job/fields.h"
#include "moerun/record.h"

namespace moerun {

/// Fields of OpenAI's request bodies (and of vLLM's beside them) that are not read: those that change no
/// answer here, whatever they say or at the values that ask for what is done anyway. Sources:
/// https://platform.openai.com/docs/api-reference/chat/create, .../completions/create,
/// https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
enum class UnreadField {
  unknown,   ///< no such field
  harmless,  ///< changes nothing at this value
  refused,   ///< would change the answer; `why` says so
};

/// What becomes of the field `name` of `body`, which has no nulls. `why` is set when it is refused.
UnreadField judge_unread_field(const std::string& name, const Json& body, Endpoint endpoint,
                               std::string& why);

}  // namespace moerun
