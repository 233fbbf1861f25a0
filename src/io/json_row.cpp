#include "io/json_row.h"

#include <algorithm>

#include "io/row_reader.h"
#include "job/nearest.h"
#include "job/sampling_fields.h"
#include "moerun/error.h"
#include "text/unicode.h"

namespace moerun {
namespace {

constexpr int kMostDepth = 100;

/// Watches a line being parsed for what JSON allows and a row does not.
class Watch {
 public:
  bool operator()(int depth, Json::parse_event_t event, Json& parsed) {
    const auto level = static_cast<size_t>(depth);
    if (depth > kMostDepth) throw BadInput(fmt::format("is nested deeper than {} levels", kMostDepth));
    if (event == Json::parse_event_t::object_start) {
      if (keys_.size() < level + 2) keys_.resize(level + 2);
      keys_[level + 1].clear();
    } else if (event == Json::parse_event_t::key && depth <= 2) {  // the line's own keys, and its body's
      const auto& key = parsed.get_ref<const std::string&>();
      auto& keys = keys_[level];
      if (std::find(keys.begin(), keys.end(), key) != keys.end())
        throw BadInput(fmt::format("has {} twice", shown(key)));
      keys.push_back(key);
    }
    return true;
  }

 private:
  std::vector<std::vector<std::string>> keys_;  // of the object being read at each depth
};

/// "column 5: what is wrong" of nlohmann's "[json.exception...] parse error at line 1, column 5: what ...".
std::string reason_of(const std::string& what) {
  const size_t column = what.find("column ");
  return shortened(column == std::string::npos ? what.substr(what.find("] ") + 2) : what.substr(column), 200);
}

}  // namespace

Json parse_json_line(std::string_view line) {
  if (const auto at = find_invalid_utf8(line))
    throw BadInput(fmt::format("byte {} of the line is no valid UTF-8", *at));
  Json value;
  try {
    Watch watch;
    value = Json::parse(line.begin(), line.end(), [&](int depth, Json::parse_event_t event, Json& parsed) {
      return watch(depth, event, parsed);
    });
  } catch (const Json::exception& error) {
    throw BadInput("not JSON at " + reason_of(error.what()));
  } catch (const BadInput& error) {
    throw BadInput(std::string("the line ") + error.what());
  }
  if (!value.is_object()) throw BadInput(fmt::format("a line must be a JSON object, not {}", shown(value)));
  return value;
}

void read_prompt(const Json& value, PromptRecord& record) {
  if (!value.is_string()) return add_fault(record, "prompt " + must_be("a text", value));
  record.prompt = value.get<std::string>();
  check_prompt_text(record);
}

void read_prompt_token_ids(const Json& value, int64_t vocab_size, PromptRecord& record) {
  const IntegerRange any{INT64_MIN, INT64_MAX};
  std::vector<int64_t> ids;
  const auto read = [&](const Json& one) { return any.read(one, ids.emplace_back()); };
  if (!value.is_array() || !std::all_of(value.begin(), value.end(), read))
    return add_fault(record, "prompt_token_ids " + must_be("a list of token ids", value));
  set_prompt_tokens(record, ids, vocab_size);
}

void read_messages(const Json& messages, const Json& tools, const Json& enable_thinking,
                   PromptRecord& record) {
  const auto is_message = [](const Json& one) {
    return one.is_object() && one.contains("role") && one["role"].is_string();
  };
  if (!messages.is_array() || messages.empty() || !std::all_of(messages.begin(), messages.end(), is_message))
    add_fault(record, "messages " + must_be("a list of objects with a role", messages));
  if (!tools.is_null() && !tools.is_array()) add_fault(record, "tools " + must_be("a list", tools));
  if (!enable_thinking.is_null() && !enable_thinking.is_boolean())
    add_fault(record, "enable_thinking " + must_be("true or false", enable_thinking));
  Json request{{"messages", messages}};
  if (!tools.is_null()) request["tools"] = tools;
  if (!enable_thinking.is_null()) request["enable_thinking"] = enable_thinking;
  record.messages = request.dump();
}

bool read_sampling_field(const std::string& name, const Json& value, PromptRecord& record) {
  const Field<SamplingParams>* field = find_sampling_field(name);
  if (!field) return false;
  const std::string wrong = field->read(value, record.sampling);
  if (!wrong.empty()) add_fault(record, fmt::format("{} {}", name, wrong));
  return true;
}

std::vector<std::string> sampling_field_names() {
  std::vector<std::string> names;
  for (const auto& field : sampling_fields()) names.push_back(field.name);
  return names;
}

void add_unknown(const std::string& name, const std::vector<std::string>& known, PromptRecord& record) {
  add_fault(record,
            fmt::format("there is no field {}; did you mean \"{}\"?", shown(name), nearest(name, known)));
}

void check_row_sampling(const Json& given, int64_t vocab_size, PromptRecord& record) {
  if (const std::string wrong = contradiction(record.sampling); !wrong.empty()) add_fault(record, wrong);
  if (!given.contains("stop_token_ids")) return;  // the job's are looked at once, with the job
  if (const std::string wrong = outside_vocabulary(record.sampling, vocab_size); !wrong.empty())
    add_fault(record, wrong);
}

void read_plain_row(const Json& line, int64_t vocab_size, PromptRecord& record) {
  static const std::vector<std::string> kOwn{"prompt", "prompt_token_ids", "messages",
                                             "tools",  "enable_thinking",  "id"};
  for (const auto& [name, value] : line.items()) {
    if (std::find(kOwn.begin(), kOwn.end(), name) != kOwn.end() || read_sampling_field(name, value, record))
      continue;
    std::vector<std::string> known = kOwn;
    for (const std::string& option : sampling_field_names()) known.push_back(option);
    add_unknown(name, known, record);
  }
  if (line.contains("id")) {
    const Json& id = line["id"];
    if (id.is_string() || id.is_number_integer())
      record.id = id.is_string() ? id.get<std::string>() : id.dump();
    else
      add_fault(record, "id " + must_be("a text or an integer", id));
    check_id(record);
  }
  if (line.contains("prompt") + line.contains("prompt_token_ids") + line.contains("messages") != 1)
    add_fault(record, "a row has exactly one of prompt, prompt_token_ids and messages");
  if (line.contains("prompt")) read_prompt(line["prompt"], record);
  if (line.contains("prompt_token_ids")) read_prompt_token_ids(line["prompt_token_ids"], vocab_size, record);
  if (line.contains("messages"))
    read_messages(line["messages"], line.value("tools", Json()), line.value("enable_thinking", Json()),
                  record);
  else if (line.contains("tools") || line.contains("enable_thinking"))
    add_fault(record, "tools and enable_thinking belong beside messages");
  check_row_sampling(line, vocab_size, record);
}

}  // namespace moerun
