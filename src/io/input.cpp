#include "io/input.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "grammar/grammar.h"
#include "io/id_set.h"
#include "io/row_reader.h"
#include "job/faults.h"
#include "job/sampling_fields.h"
#include "job/truncation.h"
#include "moerun/error.h"
#include "text/chat_template.h"
#include "text/checksum.h"
#include "text/thinking.h"

namespace moerun {
namespace {

/// As a line has it.
std::string shown_id(const PromptRecord& record) {
  return record.id_kind == IdKind::integer ? record.id : fmt::format("\"{}\"", record.id);
}

/// What takes all of a row to see, whatever its form. Ids are truncated, if the job asks for it.
void check_whole_row(const Job& job, PromptRecord& record) {
  if (!record.error.empty()) return;
  const auto check = [&](const std::string& wrong) {
    if (!wrong.empty()) add_fault(record, wrong);
  };
  if (record.prompt_token_ids) check(beyond_prompt(record.sampling, record.prompt_token_ids->size()));
  const PromptRoom room = prompt_room_of(job);
  check(no_room_for_prompt(record.sampling, room));
  if (record.error.empty() && record.prompt_token_ids) truncate_left(record, room);
}

/// Rows of a random input need not be counted, and all can be said of them at once.
InputSummary summary_of_random(const Job& job, int64_t vocab_size) {
  const RandomInput& random = *job.input.random;
  InputSummary summary;
  SamplingParams longest;
  longest.max_tokens = most_random_length(random.output_len, random.range_ratio);
  if (const std::string wrong = no_room_for_prompt(longest, prompt_room_of(job)); !wrong.empty())
    throw BadInput("input.random.output_len: " + wrong);
  summary.num_rows = static_cast<uint64_t>(random.num_prompts);
  if (job.input.limit > 0)
    summary.num_rows = std::min(summary.num_rows, static_cast<uint64_t>(job.input.limit));
  summary.checksum = sha256_hex(fmt::format("random {} {} {} {} {} {}", random.num_prompts, random.input_len,
                                            random.output_len, random.range_ratio, random.seed, vocab_size));
  return summary;
}

/// What rows ask of the model's folder beyond its vocabulary: a tokenizer for text and stop strings, a chat
/// template for messages. Each is looked for when the first row needs it.
class TextNeeds {
 public:
  /// What the job's own sampling says is looked at with the job.
  TextNeeds(const Job& job, std::time_t start)
      : model_path_(job.model.path), start_(start), of_job_(job.sampling) {}

  void check(PromptRecord& record) {
    const bool has_text = record.prompt || record.messages;
    if (const auto need = tokenizer_need(record.sampling); has_text || need) {
      if (!has_tokenizer_) has_tokenizer_ = std::filesystem::exists(model_path_ + "/tokenizer.json");
      if (!*has_tokenizer_)
        return add_fault(record, fmt::format("{} {}/tokenizer.json, which is not there; {}",
                                             has_text ? "text needs" : need->what, model_path_,
                                             has_text ? "give prompt_token_ids" : need->instead));
    }
    if (record.sampling.thinking_budget != of_job_.thinking_budget && !thinks())
      add_fault(record, fmt::format("thinking_budget: {}", kNoThinkingMarkers));
    if (record.sampling.form != of_job_.form) check_form(record);
    if (are_held_calls(record.tools)) check_calls(record);
    if (!record.messages) return;
    try {
      chat_template().render(*record.messages, &dates_);
    } catch (const Error& error) {
      add_fault(record, error.what());
    }
  }

  /// What the rows' conversations stand on.
  void note(InputSummary& summary) const {
    if (!chat_template_) return;
    summary.chat_template = chat_template_->checksum();
    summary.template_dates = dates_;
  }

 private:
  static constexpr size_t kMostKnown = 4096;

  /// Forms that were looked at lately are known: many rows ask for one.
  void check_form(PromptRecord& record) {
    const AnswerForm& form = record.sampling.form;
    const auto key = std::pair(form.kind, form.text);
    auto known = forms_.find(key);
    if (known == forms_.end()) {
      if (forms_.size() >= kMostKnown) forms_.clear();
      known = forms_.emplace(key, grammar_fault(form)).first;
    }
    if (!known->second.empty()) add_fault(record, known->second);
  }

  /// The same of calls that answers are held to.
  void check_calls(PromptRecord& record) {
    auto known = calls_.find(record.tools);
    if (known == calls_.end()) {
      if (calls_.size() >= kMostKnown) calls_.clear();
      known = calls_.emplace(record.tools, calls_fault(record.tools, chat_template().tool_format())).first;
    }
    if (!known->second.empty()) add_fault(record, known->second);
  }

  const ChatTemplate& chat_template() {
    if (!chat_template_) chat_template_.emplace(ChatTemplate::load(model_path_, start_));
    return *chat_template_;
  }

  bool thinks() {
    if (!thinks_) thinks_ = thinking_markers(Tokenizer::load(model_path_)).has_value();
    return *thinks_;
  }

  std::string model_path_;
  std::time_t start_;
  TemplateDates dates_;
  std::optional<bool> has_tokenizer_, thinks_;
  SamplingParams of_job_;
  std::map<std::pair<AnswerForm::Kind, std::string>, std::string> forms_;  // → fault
  std::map<std::string, std::string> calls_;                               // → fault
  std::optional<ChatTemplate> chat_template_;
};

/// Tells whether rows begin alike, by a table of how the rows so far began that does not grow.
class Beginnings {
 public:
  void add(const PromptRecord& record) {
    ++num_rows_;
    std::string_view begin;
    if (record.prompt) begin = std::string_view(*record.prompt).substr(0, kText);
    if (record.messages) begin = std::string_view(*record.messages).substr(0, kMessages);
    if (record.prompt_token_ids)
      begin = {reinterpret_cast<const char*>(record.prompt_token_ids->data()),
               std::min(record.prompt_token_ids->size(), kTokens) * sizeof(int32_t)};
    const size_t hash = std::hash<std::string_view>()(begin);
    auto& seen = seen_[hash % seen_.size()];
    const auto tag = static_cast<uint32_t>(hash >> 32) | 1;
    num_alike_ += std::exchange(seen, tag) == tag;
  }
  bool any() const { return num_alike_ > num_rows_ / 100; }

 private:
  // What is shorter is not worth an order. A conversation begins with names of fields.
  static constexpr size_t kTokens = 16, kText = 64, kMessages = 128;
  std::vector<uint32_t> seen_ = std::vector<uint32_t>(size_t{1} << 18);
  uint64_t num_rows_ = 0, num_alike_ = 0;
};

/// A whole pass over the rows, with what it finds.
class InputCheck {
 public:
  InputCheck(const Job& job, int64_t vocab_size, std::time_t start)
      : job_(job), rows_(open_rows(job, vocab_size)), needs_(job, start) {}

  InputSummary run() {
    const uint64_t limit = job_.input.limit > 0 ? static_cast<uint64_t>(job_.input.limit) : UINT64_MAX;
    for (PromptRecord record; summary_.num_rows < limit && rows_->next(record); ++summary_.num_rows) {
      check_row(record);
      note(record);
    }
    if (summary_.num_rows == 0) throw BadInput(fmt::format("{}: it holds no prompts", job_.input.path));
    if (job_.input.on_error == Job::Input::OnError::fail) faults_.throw_if_any();
    if (num_bad_ > 0)
      summary_.warnings.push_back(
          fmt::format("{} of {} rows are bad and will be answered with an error; the first is {}", num_bad_,
                      summary_.num_rows, first_bad_));
    needs_.note(summary_);
    summary_.alike = beginnings_.any();
    summary_.openai = rows_->is_openai();
    summary_.contents = std::make_shared<const ContentSums>(rows_->finish());
    summary_.checksum = summary_.contents->checksum;
    return std::move(summary_);
  }

 private:
  void check_row(PromptRecord& record) {
    check_whole_row(job_, record);
    if (record.error.empty()) needs_.check(record);
    if (record.error.empty()) beginnings_.add(record);
    if (record.id.empty() || record.part.index > 0) return;
    if (const auto earlier = ids_.add(record.id, record.id_kind, rows_->place())) {
      add_fault(record, fmt::format("the id {} is {}'s already", shown_id(record), rows_->where(*earlier)));
      if (job_.input.on_error == Job::Input::OnError::row) summary_.duplicate_rows.push_back(record.row);
    }
  }

  void note(const PromptRecord& record) {
    if (record.error.empty()) return;
    const std::string where = rows_->where(rows_->place());
    if (num_bad_++ == 0) first_bad_ = fmt::format("{}: {}", where, record.error);
    // What is wrong with a line of several rows is said once.
    if (record.part.index == 0 || record.error != last_fault_) faults_.add(where, record.error);
    last_fault_ = record.error;
  }

  const Job& job_;
  std::unique_ptr<RowReader> rows_;
  TextNeeds needs_;
  Beginnings beginnings_;
  IdSet ids_;
  Faults faults_;
  InputSummary summary_;
  uint64_t num_bad_ = 0;
  std::string first_bad_, last_fault_;
};

class InputSource : public RecordSource {
 public:
  InputSource(const Job& job, int64_t vocab_size, const InputSummary& summary)
      : job_(job),
        rows_(open_rows(job, vocab_size)),
        bad_rows_go_on_(job.input.on_error == Job::Input::OnError::row),
        num_rows_(summary.num_rows),
        duplicates_(summary.duplicate_rows) {
    if (summary.contents) rows_->verify(summary.contents);
  }

  bool next(PromptRecord& record) override {
    if (row_ == num_rows_) return false;
    if (!rows_->next(record))
      throw Error(fmt::format(
          "the input has {} rows; it had {} when it was checked, and must not change during the job", row_,
          num_rows_));
    ++row_;
    check_whole_row(job_, record);
    if (std::binary_search(duplicates_.begin(), duplicates_.end(),
                           record.row - static_cast<uint64_t>(record.part.index)))
      add_fault(record, fmt::format("the id {} is an earlier row's already", shown_id(record)));
    if (record.error.empty()) return true;
    record.error = fmt::format("{}: {}", rows_->where(rows_->place()), record.error);
    if (!bad_rows_go_on_) throw Error(record.error + "; it was good when it was checked");
    return true;
  }

  void seek(uint64_t row) override {
    row_ = std::min(row, num_rows_);
    rows_->seek(row_);
  }

  uint64_t num_rows() const override { return num_rows_; }

 private:
  Job job_;
  std::unique_ptr<RowReader> rows_;
  bool bad_rows_go_on_;
  uint64_t num_rows_;
  std::vector<uint64_t> duplicates_;  // ascending
  uint64_t row_ = 0;                  // the next one's
};

}  // namespace

InputSummary check_input(const Job& job, int64_t vocab_size, std::time_t start) {
  if (job.input.random) return summary_of_random(job, vocab_size);
  return InputCheck(job, vocab_size, start).run();
}

std::unique_ptr<RecordSource> open_input(const Job& job, int64_t vocab_size, const InputSummary& summary) {
  return std::make_unique<InputSource>(job, vocab_size, summary);
}

}  // namespace moerun
