#include "text/chat_parts.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "text/space.h"

namespace moerun {

namespace {

uint32_t narrow(size_t offset) { return static_cast<uint32_t>(offset); }

bool is_blank(std::string_view text) { return text.find_first_not_of(kSpace) == std::string_view::npos; }

/// Where reasoning begins; npos: nowhere.
size_t reasoning_begin(std::string_view text, bool opened) {
  const size_t first = std::min(text.find_first_not_of(kSpace), text.size());
  // Some models write the marker again that their template has written.
  if (text.substr(first).starts_with(kThink)) return first + kThink.size();
  return opened ? 0 : std::string_view::npos;
}

}  // namespace

bool opens_reasoning(std::string_view prompt_end) {
  const size_t last = prompt_end.find_last_not_of(kSpace);
  return last != std::string_view::npos && prompt_end.substr(0, last + 1).ends_with(kThink);
}

ChatParts split_chat(std::string_view text, bool reasons, bool opened, const ToolFunctions& functions) {
  const bool named = functions.named();
  ChatParts out{.content = {0, narrow(text.size())}};
  if (const size_t begin = reasons ? reasoning_begin(text, opened) : std::string_view::npos;
      begin != std::string_view::npos) {
    const size_t end = std::min(text.find(kThinkEnd, begin), text.size());
    out.known = out.has_reasoning = true;
    out.reasoning = {narrow(begin), narrow(end)};
    out.content.begin = narrow(std::min(end + kThinkEnd.size(), text.size()));
  }
  const auto found = find_tool_calls(text.substr(out.content.begin), functions);
  if (!found) return out;
  out.known = true;
  out.calls = {out.content.begin + narrow(found->begin), out.content.begin + narrow(found->end)};
  nlohmann::ordered_json calls = nlohmann::ordered_json::array();
  for (const ToolCall& call : found->calls) {
    calls.push_back({{"name", call.name}, {"arguments", call.arguments}});
    if (!call.said.empty()) calls.back()["said"] = call.said;
    if (named) calls.back()["named"] = true;
  }
  out.tool_calls = calls.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  // Line ends around calls are the format's.
  const std::string_view before = text.substr(out.content.begin, out.calls.begin - out.content.begin);
  if (is_blank(before)) out.content.begin = out.calls.begin;
  if (is_blank(text.substr(out.calls.end))) out.content.end = out.calls.end;
  return out;
}

ChatParts split_behind_thoughts(std::string_view text, size_t thoughts, const ToolFunctions& functions) {
  ChatParts out = split_chat(text.substr(thoughts), false, false, functions);
  for (ChatParts::Span* const span : {&out.content, &out.calls}) {
    span->begin += narrow(thoughts);
    span->end += narrow(thoughts);
  }
  out.known = out.has_reasoning = true;
  out.reasoning = {0, narrow(thoughts)};
  return out;
}

int32_t count_reasoning_tokens(std::span<const int32_t> token_ids, bool opened,
                               const ThinkingMarkers& markers) {
  int32_t count = 0;
  for (const int32_t id : token_ids) {
    if (id == markers.end) break;
    if (id == markers.begin && count == 0)
      opened = true;
    else if (opened)
      ++count;
  }
  return count;
}

}  // namespace moerun
