#include "coordinator/messages.h"

#include "coordinator/form_table.h"
#include "moerun/error.h"

namespace moerun {

namespace {

// One list of fields for both directions: `io` writes or reads each.
template <typename Io, typename Result>
void result_fields(Io&& io, Result& r) {
  io(r.row), io(r.id), io(r.id_kind), io(r.part), io(r.endpoint), io(r.model), io(r.prompt_length),
      io(r.prompt_truncated), io(r.token_ids), io(r.text);
  io(r.finish_reason), io(r.error), io(r.logprobs), io(r.num_top_logprobs), io(r.top_logprobs);
  io(r.prompt_logprobs), io(r.prompt_is_greedy), io(r.num_prompt_top_logprobs), io(r.prompt_top_logprobs);
  io(r.scored_tokens);
  ChatParts::each(r.chat, io);
  io(r.prompt_routed), io(r.routed);
}

template <typename Io, typename Report>
void report_fields(Io&& io, Report& r) {
  io(r.group), io(r.want), io(r.finished), io(r.prompt_tokens), io(r.output_tokens), io(r.load);
}

void put_optional(WireWriter& out, const std::optional<std::string>& text) {
  out.put(text.has_value());
  if (text) out.put(*text);
}

void get_optional(WireReader& in, std::optional<std::string>& text) {
  if (in.get<bool>()) in.get(text.emplace());
}

}  // namespace

std::string pack(const LeaderReport& report) {
  WireWriter out;
  const auto put = [&](const auto& value) { out.put(value); };
  report_fields(put, report);
  out.put(static_cast<uint64_t>(report.results.size()));
  for (const RowResult& result : report.results) {
    result_fields(put, result);
    put_optional(out, result.echo);
    put(static_cast<uint64_t>(result.more_answers.size()));
    for (const Answer& answer : result.more_answers) Answer::each(answer, put);
  }
  return out.take();
}

LeaderReport unpack_report(const std::string& bytes) {
  WireReader in(bytes);
  const auto get = [&](auto& value) { in.get(value); };
  LeaderReport report;
  report_fields(get, report);
  for (auto count = in.get<uint64_t>(); count > 0; --count) {
    RowResult& result = report.results.emplace_back();
    result_fields(get, result);
    get_optional(in, result.echo);
    for (auto more = in.get<uint64_t>(); more > 0; --more)
      Answer::each(result.more_answers.emplace_back(), get);
  }
  return report;
}

void put_record(WireWriter& out, const PromptRecord& record) {
  const auto put = [&](const auto& value) { out.put(value); };
  put(record.row), put(record.id), put(record.id_kind), put(record.part), put(record.endpoint),
      put(record.model);
  put(record.error), put(record.prompt_truncated), put(record.echo), put(record.tools);
  put_optional(out, record.prompt);
  put_optional(out, record.messages);
  put(record.prompt_token_ids.has_value());
  if (record.prompt_token_ids) put(*record.prompt_token_ids);
  SamplingParams::each(record.sampling, put);
}

PromptRecord get_record(WireReader& in) {
  const auto get = [&](auto& value) { in.get(value); };
  PromptRecord record;
  get(record.row), get(record.id), get(record.id_kind), get(record.part), get(record.endpoint),
      get(record.model);
  get(record.error), get(record.prompt_truncated), get(record.echo), get(record.tools);
  get_optional(in, record.prompt);
  get_optional(in, record.messages);
  if (in.get<bool>()) get(record.prompt_token_ids.emplace());
  SamplingParams::each(record.sampling, get);
  return record;
}

std::string pack(Handout handout) {
  FormTable forms(UINT64_MAX);
  std::vector<uint32_t> numbers;
  for (PromptRecord& record : handout.records) numbers.push_back(forms.take_from(record));
  WireWriter out;
  const auto put = [&](const auto& value) { out.put(value); };
  put(handout.rows_left), put(handout.no_more), put(handout.stop);
  put(static_cast<uint64_t>(handout.records.size()));
  for (const PromptRecord& record : handout.records) put_record(out, record);
  put(numbers);
  put(static_cast<uint64_t>(forms.forms().size()));
  for (const AnswerForm& form : forms.forms()) put(form.kind), put(form.text);
  for (const RowPlace& place : handout.places) put(place.ordered), put(place.follows), put(place.alike);
  return out.take();
}

Handout unpack_handout(const std::string& bytes) {
  WireReader in(bytes);
  const auto get = [&](auto& value) { in.get(value); };
  Handout handout;
  get(handout.rows_left), get(handout.no_more), get(handout.stop);
  for (auto count = in.get<uint64_t>(); count > 0; --count) handout.records.push_back(get_record(in));
  const auto numbers = in.get<std::vector<uint32_t>>();
  std::vector<AnswerForm> forms;
  for (auto count = in.get<uint64_t>(); count > 0; --count) {
    AnswerForm& form = forms.emplace_back();
    get(form.kind), get(form.text);
  }
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (numbers[i] == FormTable::in_record) continue;
    if (i >= handout.records.size() || numbers[i] > forms.size())
      throw Error("a message between ranks names a form that it does not have");
    handout.records[i].sampling.form = forms[numbers[i] - 1];
  }
  handout.places.resize(handout.records.size());
  for (RowPlace& place : handout.places) get(place.ordered), get(place.follows), get(place.alike);
  return handout;
}

}  // namespace moerun
