#pragma once
#include <fstream>
#include <string>
#include <vector>

#include "io/input.h"
#include "io/row_reader.h"
#include "moerun/error.h"
#include "tests/unit/temporary_directory.h"
#include "tests/unit/text_fixture.h"

namespace moerun {

/// A job over an input file of its own.
struct InputFixture {
  static constexpr int64_t kVocabulary = 4096;  // kTinyModel's
  TemporaryDirectory dir;
  Job job;

  InputFixture(const std::string& name, const std::string& contents) {
    job.model.path = kTinyModel;
    job.input.path = dir / name;
    if (!contents.empty()) std::ofstream(job.input.path, std::ios::binary) << contents;
  }

  std::vector<PromptRecord> rows() const {
    const auto reader = open_rows(job, kVocabulary);
    std::vector<PromptRecord> rows;
    for (PromptRecord record; reader->next(record);) rows.push_back(record);
    return rows;
  }
  PromptRecord row() const {
    const std::vector<PromptRecord> all = rows();
    REQUIRE(all.size() == 1);
    return all[0];
  }
  InputSummary check() const { return check_input(job, kVocabulary, 0); }
  /// What the check refuses the input with, its directory left out.
  std::string faults() const {
    try {
      check();
      return "";
    } catch (const BadInput& error) {
      std::string text = error.what();
      for (size_t at; (at = text.find(dir / "")) != std::string::npos;) text.erase(at, (dir / "").size());
      return text;
    }
  }
};

}  // namespace moerun
