#pragma once
#include "job/fields.h"
#include "moerun/record.h"

namespace moerun {

/// `tools` and `tool_choice` of a chat's body (https://platform.openai.com/docs/api-reference/chat/create):
/// sets record.tools where calls are to be looked for in the answer. Faults of tools that are no functions,
/// and of choices that would need the answer to be a call. Returns whether the model is told of the tools:
/// not where `tool_choice` is "none".
bool read_tools(const Json& body, PromptRecord& record);

/// The calls that assistants made earlier in a conversation: their `arguments`, a JSON object in a text as
/// OpenAI has them, become that object, which is what chat templates take
/// (https://huggingface.co/docs/transformers/chat_extras). Faults of other texts.
void read_past_calls(Json& messages, PromptRecord& record);

}  // namespace moerun
