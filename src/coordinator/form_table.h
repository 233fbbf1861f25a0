#pragma once
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "moerun/record.h"

namespace moerun {

/// Forms of answers that many rows share: each is kept once, and rows have its number. Thread contract: one
/// thread at a time.
class FormTable {
 public:
  /// Numbers of forms. `in_record`: the record has its form itself, because it has none, or the table is
  /// full.
  static constexpr uint32_t in_record = 0;

  /// `most_bytes` of their texts are kept.
  explicit FormTable(uint64_t most_bytes) : most_bytes_(most_bytes) {}

  /// Takes the form out of a record, unless it stays in it.
  uint32_t take_from(PromptRecord& record) {
    AnswerForm& form = record.sampling.form;
    if (form.kind == AnswerForm::Kind::any) return in_record;
    std::string key = static_cast<char>(form.kind) + form.text;
    const auto known = numbers_.find(key);
    if (known == numbers_.end() && bytes_ + form.text.size() > most_bytes_) return in_record;
    uint32_t number = known == numbers_.end() ? 0 : known->second;
    if (known == numbers_.end()) {
      bytes_ += form.text.size();
      forms_.push_back(std::move(form));
      number = static_cast<uint32_t>(forms_.size());
      numbers_.emplace(std::move(key), number);
    }
    form = {};
    return number;
  }
  /// Gives a record its form back. `number` is one that take_from returned.
  void give_back(uint32_t number, PromptRecord& record) const {
    if (number != in_record) record.sampling.form = forms_.at(number - 1);
  }
  const std::vector<AnswerForm>& forms() const { return forms_; }

 private:
  uint64_t most_bytes_, bytes_ = 0;
  std::vector<AnswerForm> forms_;
  std::unordered_map<std::string, uint32_t> numbers_;
};

}  // namespace moerun
