#include "text/chat_messages.h"

#include <algorithm>
#include <utility>

namespace moerun {
namespace {

using jinja::Dict;
using jinja::Value;

/// The message's reasoning; null where it has none.
const Value* reasoning_of(const Dict& message) {
  for (const char* name : {"reasoning_content", "thinking", "reasoning"})
    if (const Value* value = message.find(name); value && !value->is_none()) return value;
  return nullptr;
}

bool has_null(const Dict& message) {
  const auto& entries = message.entries();
  return std::any_of(entries.begin(), entries.end(),
                     [](const auto& entry) { return entry.second.is_none(); });
}

/// Keys in the order of Python's {"thinking": reasoning, **message, "reasoning_content": reasoning}.
Value message_of(jinja::Runtime& runtime, const Dict& message, const Value* reasoning) {
  const auto out = runtime.new_dict();
  if (reasoning) out->set(runtime.string("thinking"), *reasoning);
  for (const auto& [key, value] : message.entries())
    if (!value.is_none()) out->set(key, value);
  if (reasoning) out->set(runtime.string("reasoning_content"), *reasoning);
  return runtime.of_dict(out);
}

}  // namespace

Value chat_messages(jinja::Runtime& runtime, const Value& messages) {
  std::vector<Value> items = messages.sequence()->items;
  for (Value& item : items) {
    const Dict& message = *item.dict();
    const Value* reasoning = reasoning_of(message);
    if (reasoning || has_null(message)) item = message_of(runtime, message, reasoning);
  }
  return runtime.list(std::move(items));
}

}  // namespace moerun
