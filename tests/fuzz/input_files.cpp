#include "io/hdf5_input.h"
#include "io/input.h"
#include "io/row_reader.h"
#include "tests/fuzz/harness.h"

namespace moerun::fuzz {

namespace {

/// The file is checked as before a run, then read as while one runs. With `on_error: row`, what the check
/// counted is what is handed out, faults included.
void read_input(const std::string& path) {
  Job job;
  job.model.path = "data/tiny-moe";
  job.input.path = path;
  job.input.on_error = Job::Input::OnError::fail;
  refuses([&] { check_input(job, kVocabulary, 0); });
  job.input.on_error = Job::Input::OnError::row;
  const InputSummary summary = check_input(job, kVocabulary, 0);
  const auto source = open_input(job, kVocabulary, summary);
  uint64_t rows = 0;
  for (PromptRecord record; source->next(record); ++rows) check(record.row == rows, "rows come in order");
  check(rows == summary.num_rows, "a file has as many rows as the check counted");
  source->seek(rows / 2);
  PromptRecord record;
  check(source->next(record) && record.row == rows / 2, "seek() finds its row");
}

}  // namespace

void read_jsonl(std::string_view bytes) { read_input(write_scratch("in.jsonl", bytes)); }
void read_text(std::string_view bytes) { read_input(write_scratch("in.txt", bytes)); }
void read_hdf5(std::string_view bytes) { read_input(write_scratch("in.h5", bytes)); }

/// What the process that reads HDF5 answers with; it may have gone wrong on its file. The first byte says
/// what kind of input it is of.
void read_hdf5_block(std::string_view bytes) {
  const unsigned kind = take_byte(bytes);
  const Hdf5InputShape shape{.num_rows = 1000, .has_text = (kind & 1) != 0, .has_ids = (kind & 2) != 0};
  const Hdf5Block block = Hdf5Block::unpack(std::string(bytes), shape);
  check(block.lengths.size() == block.num_rows, "a block has a length for each row");
  check(block.ids.size() == (shape.has_ids ? block.num_rows : 0), "a block has an id for each row, or none");
}

}  // namespace moerun::fuzz
