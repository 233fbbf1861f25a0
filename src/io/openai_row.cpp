#include <algorithm>
#include <filesystem>

#include "io/json_row.h"
#include "io/openai_fields.h"
#include "io/openai_tools.h"
#include "io/row_reader.h"
#include "job/form_fields.h"

namespace moerun {
namespace {

// Beside OpenAI's those of vLLM's and SGLang's servers for the chat template.
const std::vector<std::string> kChatFields{"model",
                                           "messages",
                                           "max_tokens",
                                           "max_completion_tokens",
                                           "logprobs",
                                           "top_logprobs",
                                           "tools",
                                           "documents",
                                           "add_generation_prompt",
                                           "chat_template_kwargs",
                                           "tool_choice",
                                           "parallel_tool_calls"};
const std::vector<std::string> kCompletionFields{"model", "prompt", "max_tokens", "logprobs", "echo"};

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Endpoint endpoint_of(const Json& url) {
  if (url == "/v1/chat/completions") return Endpoint::chat_completions;
  return url == "/v1/completions" ? Endpoint::completions : Endpoint::none;
}

void check_model(const Json& model, const std::vector<std::string>& names, PromptRecord& record) {
  if (!model.is_string()) return add_fault(record, "body.model " + must_be("the model's name", model));
  const auto& name = model.get_ref<const std::string&>();
  const auto fits = [&](const std::string& known) { return name == known || name.ends_with("/" + known); };
  if (!std::any_of(names.begin(), names.end(), fits))
    add_fault(record,
              fmt::format("body.model is {}, but this job runs {}", shown(model), shown(names.front())));
}

/// Chat: `logprobs: true` asks for the chosen tokens' and `top_logprobs: n` for the n most likely.
void read_chat_logprobs(const Json& body, PromptRecord& record) {
  const Json wanted = body.value("logprobs", Json(false));
  if (!wanted.is_boolean()) return add_fault(record, "body.logprobs " + must_be("true or false", wanted));
  if (!wanted.get<bool>()) {
    if (body.contains("top_logprobs") && body["top_logprobs"] != 0)
      add_fault(record, "body.top_logprobs needs body.logprobs: true");
    if (body.contains("logprobs")) record.sampling.draw.logprobs = -1;
    return;
  }
  int64_t count = 0;
  const IntegerRange range{0, kMaxLogprobs};
  const Json top = body.value("top_logprobs", Json(0));
  if (!range.read(top, count))
    return add_fault(record, "body.top_logprobs " + must_be("an integer " + range.words(), top));
  record.sampling.draw.logprobs = static_cast<int32_t>(count);
}

void read_chat(Json& body, PromptRecord& record) {
  if (!body.contains("messages")) return add_fault(record, "body.messages is missing");
  if (!read_tools(body, record)) body.erase("tools");
  read_past_calls(body["messages"], record);
  read_conversation(body, record);
  read_chat_logprobs(body, record);
  if (!body.contains("max_completion_tokens")) return;
  if (body.contains("max_tokens"))
    add_fault(record, "body has max_tokens and max_completion_tokens; one of them must go");
  read_sampling_field("max_tokens", body["max_completion_tokens"], record);
}

/// `echo` repeats the prompt before the answer, with log-probabilities of both where they are asked for.
void read_echo(const Json& body, PromptRecord& record) {
  const Json echo = body.value("echo", Json(false));
  if (!echo.is_boolean()) return add_fault(record, "body.echo " + must_be("true or false", echo));
  record.echo = echo.get<bool>();
  SamplingParams& sampling = record.sampling;
  if (!record.echo || sampling.draw.logprobs < 0) return;
  if (body.contains("prompt_logprobs_start") && sampling.prompt_logprobs_start > 0)
    add_fault(record,
              "body.prompt_logprobs_start has no place beside echo: true, which scores the whole prompt");
  sampling.prompt_logprobs = std::max(sampling.prompt_logprobs, sampling.draw.logprobs);
  sampling.prompt_logprobs_start = 0;
}

/// Whether a prompt is a list of them: texts, or lists of token ids.
bool is_list_of_prompts(const Json& prompt) {
  return prompt.is_array() && !prompt.empty() && (prompt[0].is_string() || prompt[0].is_array());
}

void read_completion(const Json& body, int64_t vocab_size, PromptRecord& record) {
  if (!body.contains("prompt")) return add_fault(record, "body.prompt is missing");
  const Json& prompt = body["prompt"];
  if (prompt.is_array())
    read_prompt_token_ids(prompt, vocab_size, record);
  else
    read_prompt(prompt, record);
  if (body.contains("logprobs")) read_sampling_field("logprobs", body["logprobs"], record);
  read_echo(body, record);
}

/// OpenAI takes any integer of 64 bits as a seed: a negative one is that of its bits.
Json seed_of(const Json& value) {
  if (!value.is_number_integer() || value.is_number_unsigned()) return value;
  return Json(static_cast<uint64_t>(value.get<int64_t>()));
}

void read_body(Json body, int64_t vocab_size, PromptRecord& record) {
  if (body.contains("seed")) body["seed"] = seed_of(body["seed"]);
  const bool chat = record.endpoint == Endpoint::chat_completions;
  const std::vector<std::string>& own = chat ? kChatFields : kCompletionFields;
  for (const auto& [name, value] : body.items()) {
    if (name != "max_tokens" && contains(own, name)) continue;
    if (name == "response_format") {
      const std::string wrong = read_response_format(value, record.sampling);
      if (!wrong.empty()) add_fault(record, "body.response_format " + wrong);
      continue;
    }
    std::string why;
    const UnreadField unread = judge_unread_field(name, body, record.endpoint, why);
    if (unread == UnreadField::refused) add_fault(record, why);
    if (unread != UnreadField::unknown || read_sampling_field(name, value, record)) continue;
    std::vector<std::string> known = own;
    for (const std::string& option : sampling_field_names()) known.push_back(option);
    add_unknown("body.", name, known, record);
  }
  if (chat)
    read_chat(body, record);
  else
    read_completion(body, vocab_size, record);
  check_row_sampling(body, vocab_size, record);
}

}  // namespace

bool is_openai_line(const Json& line) { return line.contains("custom_id") || line.contains("body"); }

namespace {

void read_openai_row(Json line, const std::vector<std::string>& model_names, int64_t vocab_size,
                     PromptRecord& record) {
  static const std::vector<std::string> kFields{"custom_id", "method", "url", "body"};
  for (const auto& [name, value] : line.items())
    if (!contains(kFields, name) && !value.is_null()) add_unknown("", name, kFields, record);
  for (const std::string& name : kFields)
    if (!line.contains(name)) add_fault(record, name + " is missing");

  if (line.contains("custom_id")) {
    // It comes back as it is, also where it is no good.
    read_id_of_bad_line(line, "custom_id", record);
    const Json& id = line["custom_id"];
    if (!id.is_string() || id == "")
      add_fault(record, "custom_id " + must_be("a text that is not empty", id));
    else
      check_id(record);
  }
  const Json method = line.value("method", Json("POST"));
  if (method != "POST") add_fault(record, "method " + must_be("\"POST\"", method));
  const Json url = line.value("url", Json("/v1/chat/completions"));
  record.endpoint = endpoint_of(url);
  if (record.endpoint == Endpoint::none)
    add_fault(record, "url " + must_be("\"/v1/chat/completions\" or \"/v1/completions\"", url));

  if (!line.contains("body")) return;
  Json body = std::move(line["body"]);
  if (!body.is_object()) return add_fault(record, "body " + must_be("an object", body));
  drop_nulls(body);  // OpenAI's API takes them as left out
  const Json model = body.value("model", Json());
  if (model.is_string()) record.model = model.get<std::string>();
  if (record.endpoint == Endpoint::none) return;
  check_model(model, model_names, record);
  read_body(std::move(body), vocab_size, record);
}

/// The prompts of a completion's line where there are several, or one in a list; else null.
Json* prompts_of(Json& line) {
  if (!line.is_object() || line.value("url", Json()) != "/v1/completions" || !line.contains("body"))
    return nullptr;
  Json& body = line["body"];
  if (!body.is_object() || !body.contains("prompt") || !is_list_of_prompts(body["prompt"])) return nullptr;
  return &body["prompt"];
}

}  // namespace

std::vector<PromptRecord> read_openai_rows(Json line, const std::vector<std::string>& model_names,
                                           int64_t vocab_size, const PromptRecord& record) {
  std::vector<Json> prompts;
  if (Json* const list = prompts_of(line)) {
    prompts = std::move(list->get_ref<Json::array_t&>());
    *list = Json();
  }
  const size_t count = std::min(std::max<size_t>(prompts.size(), 1), kMostPrompts);
  std::vector<PromptRecord> records(count, record);
  std::string fault;
  for (size_t i = 0; i < count; ++i) {
    Json own = i + 1 < count ? line : std::move(line);
    if (!prompts.empty()) own["body"]["prompt"] = std::move(prompts[i]);
    records[i].row = record.row + i;
    records[i].part = {static_cast<int32_t>(i), static_cast<int32_t>(count)};
    read_openai_row(std::move(own), model_names, vocab_size, records[i]);
    if (fault.empty()) fault = records[i].error;
  }
  if (prompts.size() > kMostPrompts)
    fault = fmt::format("body.prompt is a list of {} prompts, and a line has at most {}", prompts.size(),
                        kMostPrompts);
  for (PromptRecord& one : records) one.error = fault;
  return records;
}

uint64_t num_openai_rows(std::string_view line) {
  // The name has no other spelling but with escapes of its letters.
  if (line.find("\"prompt\"") == std::string_view::npos && line.find("\\u00") == std::string_view::npos)
    return 1;
  JsonLine read = read_json_line(line);
  const Json* const prompts = read.fault.empty() ? prompts_of(read.value) : nullptr;
  return prompts ? std::min(prompts->size(), kMostPrompts) : 1;
}

std::vector<std::string> model_names_of(const std::string& model_path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const fs::path real = fs::weakly_canonical(model_path, ignored);
  fs::path plain = fs::path(model_path).lexically_normal();
  if (plain.filename().empty()) plain = plain.parent_path();  // a slash at the end
  std::vector<std::string> names{plain.filename().string(), real.filename().string(), model_path};
  for (const fs::path& part : real) {
    const std::string name = part.string();
    const size_t split = name.starts_with("models--") ? name.find("--", 8) : std::string::npos;
    if (split == std::string::npos) continue;
    names.insert(names.begin(), name.substr(8, split - 8) + "/" + name.substr(split + 2));
    names.push_back(name.substr(split + 2));
  }
  return names;
}

}  // namespace moerun
