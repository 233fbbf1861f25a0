#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "io/content_sums.h"
#include "io/hdf5_child.h"
#include "io/json_line.h"
#include "io/json_row.h"
#include "io/row_reader.h"
#include "moerun/error.h"

namespace moerun {
namespace {

/// What an Hdf5Child reads, as rows.
class Hdf5Rows : public RowReader {
 public:
  Hdf5Rows(const Job& job, int64_t vocab_size)
      : path_(job.input.path), job_sampling_(job.sampling), vocab_size_(vocab_size) {
    // HDF5's own words for these two are "unable to open file".
    struct stat status {};
    if (stat(path_.c_str(), &status) != 0)
      throw BadInput(fmt::format("{}: cannot be read: {}", path_, std::strerror(errno)));
    if (!S_ISREG(status.st_mode))
      throw BadInput(fmt::format("{}: cannot be read: it is no regular file", path_));
    child_ = std::make_unique<Hdf5Child>(path_, job.input.allow_external);
  }

  bool next(PromptRecord& record) override {
    if (row_ == shape().num_rows) return false;
    if (row_ < block_.first_row || row_ >= block_.first_row + block_.num_rows) read_block();
    record = {};
    record.row = row_;
    record.sampling = job_sampling_;
    const auto at = static_cast<size_t>(row_ - block_.first_row);
    if (shape().has_ids) {
      record.id = block_.ids[at];
      record.id_kind = shape().id_kind;
      check_id(record);
    }
    if (shape().has_sampling) set_sampling(record, block_.sampling[at]);
    if (shape().has_text)
      set_text(record, at);
    else
      set_tokens(record, at);
    ++row_;
    return true;
  }

  void seek(uint64_t row) override {
    row_ = std::min(row, shape().num_rows);
    block_ = {};  // strings were moved out
  }
  std::string where(uint64_t place) const override { return fmt::format("{}: row {}", path_, place); }
  uint64_t place() const override { return row_ - 1; }

  ContentSums finish() override {
    sums_.checksum = hash_.hex();
    return std::move(sums_);
  }
  void verify(std::shared_ptr<const ContentSums> sums) override {
    expected_ = std::move(sums);
    seek(0);
  }

 private:
  const Hdf5InputShape& shape() const { return child_->shape(); }

  void read_block() {
    if (expected_) return read_expected_block();
    const std::string packed = child_->read(row_);
    hash_.update(packed);
    sums_.begins.push_back(row_);
    sums_.digests.push_back(digest_of(packed));
    take(packed, row_);
  }

  /// The block that held the row at the start, if it is still what it was.
  void read_expected_block() {
    const auto& begins = expected_->begins;
    const auto after = std::upper_bound(begins.begin(), begins.end(), row_);
    if (after == begins.begin())
      throw Error(fmt::format("{}: row {} was not read at the start", path_, row_));
    const auto part = static_cast<size_t>(after - begins.begin() - 1);
    std::string packed;
    try {
      packed = child_->read(begins[part]);
    } catch (const BadInput& fault) {  // it could be read at the start
      changed(fault.what());
    }
    if (digest_of(packed) != expected_->digests[part])
      changed(fmt::format("from row {} on it is not what was checked at the start", begins[part]));
    take(packed, begins[part]);
  }

  [[noreturn]] void changed(const std::string& how) const {
    throw Error(fmt::format(
        "{} changed while the job ran: {}. Put back what it was, and the same command goes on; as it is now, "
        "it is another job's input",
        path_, how));
  }

  static Sha256::Digest digest_of(const std::string& packed) {
    Sha256 hash;
    hash.update(packed);
    return hash.digest();
  }

  void take(const std::string& packed, uint64_t first_row) {
    block_ = Hdf5Block::unpack(packed, shape());
    if (block_.first_row != first_row || row_ < first_row || row_ - first_row >= block_.num_rows)
      throw Error(fmt::format("{}: the process that reads it sent other rows than were asked for", path_));
    token_begins_.assign(1, 0);
    for (const uint64_t length : block_.lengths) token_begins_.push_back(token_begins_.back() + length);
  }

  /// `given`: a JSON object of sampling options, or empty.
  void set_sampling(PromptRecord& record, const std::string& given) const {
    if (given.empty()) return;
    JsonLine read = read_json_line(given);
    if (!read.fault.empty()) return add_fault(record, "sampling: " + read.fault);
    drop_nulls(read.value);
    for (const auto& [name, value] : read.value.items())
      if (!read_sampling_field(name, value, record))
        add_unknown("sampling.", name, sampling_field_names(), record);
    check_row_sampling(read.value, vocab_size_, record);
  }

  void set_text(PromptRecord& record, size_t at) {
    if (block_.lengths[at] > hdf5::DatasetLimits::kMostStringBytes)
      return add_fault(record, fmt::format("the prompt is longer than {} MiB",
                                           hdf5::DatasetLimits::kMostStringBytes >> 20));
    record.prompt = std::move(block_.texts[at]);
    check_prompt_text(record);
  }

  void set_tokens(PromptRecord& record, size_t at) const {
    const uint64_t count = block_.lengths[at];
    if (count > Hdf5Input::kMostTokens)
      return add_fault(record,
                       fmt::format("the prompt has {} tokens, more than {}", count, Hdf5Input::kMostTokens));
    set_prompt_tokens(record, {block_.tokens.data() + token_begins_[at], count}, vocab_size_);
  }

  std::string path_;
  SamplingParams job_sampling_;
  int64_t vocab_size_;
  std::unique_ptr<Hdf5Child> child_;
  uint64_t row_ = 0;                    // the next one's
  Hdf5Block block_;                     // rows that are in memory
  std::vector<uint64_t> token_begins_;  // [block_.num_rows + 1] in block_.tokens
  ContentSums sums_;                    // of what was read, in order
  Sha256 hash_;
  std::shared_ptr<const ContentSums> expected_;  // set: compare
};

}  // namespace

std::unique_ptr<RowReader> open_hdf5_rows(const Job& job, int64_t vocab_size) {
  return std::make_unique<Hdf5Rows>(job, vocab_size);
}

}  // namespace moerun
