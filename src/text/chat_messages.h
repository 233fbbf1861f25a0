#pragma once
#include "text/jinja/runtime.h"

namespace moerun {

/// The messages as transformers 5.24 hands them to a chat template (utils/chat_template_utils.py): a
/// message's keys whose value is null are left out, since templates take a missing key and print or fail on
/// None; what stands under `reasoning_content`, `thinking` or `reasoning`, the first of them that is there,
/// also stands under `reasoning_content` and, unless it has a text of its own, `thinking`. `messages` is a
/// list of dicts.
jinja::Value chat_messages(jinja::Runtime& runtime, const jinja::Value& messages);

}  // namespace moerun
