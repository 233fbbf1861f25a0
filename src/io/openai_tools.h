#pragma once
#include "job/fields.h"
#include "moerun/record.h"

namespace moerun {

/// `tools`, `tool_choice` and `parallel_tool_calls` of a chat's body
/// (https://platform.openai.com/docs/api-reference/chat/create): sets record.tools where calls are to be
/// looked for in the answer, which are held calls (text/tool_calls.h) where a call is asked for, only
/// some functions may be called, one of them is `strict`, or there is to be one call. Comes behind what else
/// sets the form. Faults of tools that are no functions. Returns whether the model is told of the tools: not
/// where `tool_choice` is "none".
bool read_tools(const Json& body, PromptRecord& record);

/// The calls that assistants made earlier in a conversation: their `arguments`, a JSON object in a text as
/// OpenAI has them, become that object, which is what chat templates take
/// (https://huggingface.co/docs/transformers/chat_extras). Faults of other texts.
void read_past_calls(Json& messages, PromptRecord& record);

}  // namespace moerun
