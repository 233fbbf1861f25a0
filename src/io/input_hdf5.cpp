#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "io/hdf5.h"
#include "io/row_reader.h"
#include "moerun/error.h"

namespace moerun {
namespace {

constexpr uint64_t kBlockRows = 4096;
constexpr uint64_t kBlockTokens = uint64_t{1} << 20;
constexpr uint64_t kMostTokens = uint64_t{1} << 24;  // of a row

/// /prompts/tokens with /prompts/offsets, or /prompts/text; /prompts/id when there is one.
class Hdf5Rows : public RowReader {
 public:
  Hdf5Rows(const Job& job, int64_t vocab_size)
      : path_(job.input.path), job_sampling_(job.sampling), vocab_size_(vocab_size) {
    // HDF5's own words for these two are "unable to open file".
    struct stat status {};
    if (stat(path_.c_str(), &status) != 0) refuse("cannot be read: {}", std::strerror(errno));
    if (!S_ISREG(status.st_mode)) refuse("cannot be read: it is no regular file");
    guarded([&] { open(); });
  }

  bool next(PromptRecord& record) override {
    if (row_ == num_rows_) return false;
    if (row_ < block_begin_ || row_ >= block_end_) guarded([&] { read_block(); });
    record = {};
    record.row = row_;
    record.sampling = job_sampling_;
    const auto at = static_cast<size_t>(row_ - block_begin_);
    if (id_) {
      record.id = ids_[at];
      if (!id_->is_string()) record.id_kind = IdKind::integer;
      check_id(record);
    }
    if (text_) {
      record.prompt = std::move(texts_[at]);
      check_prompt_text(record);
    } else {
      set_tokens(record, at);
    }
    ++row_;
    return true;
  }

  void seek(uint64_t row) override {
    row_ = std::min(row, num_rows_);
    block_begin_ = block_end_ = 0;  // strings were moved out
  }
  std::string where(uint64_t place) const override { return fmt::format("{}: row {}", path_, place); }
  uint64_t place() const override { return row_ - 1; }

 private:
  template <class... Arguments>
  [[noreturn]] void refuse(fmt::format_string<Arguments...> format, Arguments&&... arguments) const {
    throw BadInput(fmt::format("{}: {}", path_, fmt::format(format, std::forward<Arguments>(arguments)...)));
  }

  /// What HDF5 cannot read is the input's fault.
  template <class Function>
  void guarded(Function&& function) const {
    try {
      function();
    } catch (const BadInput&) {
      throw;
    } catch (const Error& error) {
      throw BadInput(error.what());
    }
  }

  hdf5::Dataset integers(const hdf5::File& file, const char* name) const {
    hdf5::Dataset data = file.dataset(name);
    if (!data.is_integer() || data.shape().size() != 1) refuse("/{} must be a list of integers", name);
    return data;
  }

  void open() {
    const hdf5::File file = hdf5::File::open(path_);
    const bool has_text = file.has("prompts/text");
    const bool has_tokens = file.has("prompts/tokens");
    if (has_text && has_tokens) refuse("it has /prompts/text and /prompts/tokens; one of them must go");
    if (has_text) {
      text_.emplace(file.dataset("prompts/text"));
      if (!text_->is_string() || text_->shape().size() != 1)
        refuse("/prompts/text must be a list of strings");
      num_rows_ = text_->rows();
    } else if (has_tokens) {
      if (!file.has("prompts/offsets")) refuse("it has /prompts/tokens without /prompts/offsets");
      tokens_.emplace(integers(file, "prompts/tokens"));
      offsets_.emplace(integers(file, "prompts/offsets"));
      if (offsets_->rows() == 0) refuse("/prompts/offsets must have one more entry than there are rows");
      num_rows_ = offsets_->rows() - 1;
      check_offsets();
    } else {
      refuse("it has neither /prompts/tokens nor /prompts/text");
    }
    if (!file.has("prompts/id")) return;
    id_.emplace(file.dataset("prompts/id"));
    if (id_->shape().size() != 1 || !(id_->is_string() || id_->is_integer()))
      refuse("/prompts/id must be a list of strings or integers");
    if (id_->rows() != num_rows_) refuse("/prompts/id has {} entries for {} rows", id_->rows(), num_rows_);
  }

  /// Offsets that do not hold would shift every prompt behind: no row of such a file is good.
  void check_offsets() const {
    int64_t last = 0;
    for (uint64_t begin = 0; begin < offsets_->rows(); begin += kBlockTokens) {
      const auto block = offsets_->read<int64_t>(begin, std::min(kBlockTokens, offsets_->rows() - begin));
      if (begin == 0 && block[0] != 0) refuse("/prompts/offsets begins with {}, not 0", block[0]);
      for (size_t i = 0; i < block.size(); ++i) {
        if (block[i] < last)
          refuse("/prompts/offsets goes back at entry {}: {} after {}", begin + i, block[i], last);
        last = block[i];
      }
    }
    if (static_cast<uint64_t>(last) != tokens_->rows())
      refuse("/prompts/offsets ends at {}, but /prompts/tokens has {}", last, tokens_->rows());
  }

  void read_block() {
    block_begin_ = row_;
    block_end_ = std::min(row_ + kBlockRows, num_rows_);
    if (tokens_) read_token_block();
    const uint64_t count = block_end_ - block_begin_;
    if (text_) texts_ = text_->read_strings(block_begin_, count);
    if (!id_) return;
    if (id_->is_string()) {
      ids_ = id_->read_strings(block_begin_, count);
    } else {
      ids_.clear();
      // HDF5 clips what does not fit the type it reads into.
      if (id_->is_unsigned())
        for (const uint64_t id : id_->read<uint64_t>(block_begin_, count)) ids_.push_back(std::to_string(id));
      else
        for (const int64_t id : id_->read<int64_t>(block_begin_, count)) ids_.push_back(std::to_string(id));
    }
  }

  /// As many rows as fit kBlockTokens, and one at least (its tokens are left out when they are too many).
  void read_token_block() {
    block_offsets_ = offsets_->read<uint64_t>(block_begin_, block_end_ - block_begin_ + 1);
    const auto fits =
        std::upper_bound(block_offsets_.begin() + 1, block_offsets_.end(), block_offsets_[0] + kBlockTokens);
    const auto rows = std::max<std::ptrdiff_t>(1, fits - block_offsets_.begin() - 1);
    block_end_ = block_begin_ + static_cast<uint64_t>(rows);
    block_offsets_.resize(static_cast<size_t>(rows) + 1);
    const uint64_t count = block_offsets_.back() - block_offsets_.front();
    // As int64: HDF5 clips what does not fit the type it reads into, and a clipped id could be a valid one.
    block_tokens_ =
        count > kMostTokens ? std::vector<int64_t>() : tokens_->read<int64_t>(block_offsets_[0], count);
  }

  void set_tokens(PromptRecord& record, size_t at) const {
    const uint64_t count = block_offsets_[at + 1] - block_offsets_[at];
    if (count > kMostTokens)
      return add_fault(record, fmt::format("the prompt has {} tokens, more than {}", count, kMostTokens));
    const int64_t* token = block_tokens_.data() + (block_offsets_[at] - block_offsets_[0]);
    set_prompt_tokens(record, {token, count}, vocab_size_);
  }

  std::string path_;
  SamplingParams job_sampling_;
  int64_t vocab_size_;
  // The file stays open as long as one of its datasets is.
  std::optional<hdf5::Dataset> tokens_, offsets_, text_, id_;
  uint64_t num_rows_ = 0;
  uint64_t row_ = 0;                          // the next one's
  uint64_t block_begin_ = 0, block_end_ = 0;  // rows that are in memory
  std::vector<uint64_t> block_offsets_;       // [block rows + 1]
  std::vector<int64_t> block_tokens_;
  std::vector<std::string> texts_, ids_;  // [block rows]
};

}  // namespace

std::unique_ptr<RowReader> open_hdf5_rows(const Job& job, int64_t vocab_size) {
  return std::make_unique<Hdf5Rows>(job, vocab_size);
}

}  // namespace moerun
