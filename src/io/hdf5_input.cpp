#include "io/hdf5_input.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "moerun/error.h"
#include "moerun/wire.h"

namespace moerun {
namespace {

template <class... Arguments>
[[noreturn]] void refuse(const std::string& path, fmt::format_string<Arguments...> format,
                         Arguments&&... arguments) {
  throw BadInput(fmt::format("{}: {}", path, fmt::format(format, std::forward<Arguments>(arguments)...)));
}

constexpr uint64_t kOffsetsAtOnce = uint64_t{1} << 20;

}  // namespace

std::string Hdf5Block::pack() const {
  WireWriter out;
  out.put(first_row), out.put(num_rows), out.put(lengths), out.put(tokens), out.put(texts), out.put(ids);
  out.put(sampling);
  return out.take();
}

Hdf5Block Hdf5Block::unpack(const std::string& bytes, const Hdf5InputShape& shape) {
  WireReader in(bytes);
  Hdf5Block block;
  in.get(block.first_row), in.get(block.num_rows), in.get(block.lengths), in.get(block.tokens);
  in.get(block.texts), in.get(block.ids), in.get(block.sampling);
  uint64_t tokens = 0;
  for (const uint64_t length : block.lengths)
    if (__builtin_add_overflow(tokens, length, &tokens)) tokens = UINT64_MAX;
  const bool left_out = block.num_rows == 1 && tokens > Hdf5Input::kMostTokens && block.tokens.empty();
  const bool fits = in.at_end() && block.num_rows > 0 && block.num_rows <= shape.num_rows &&
                    block.first_row <= shape.num_rows - block.num_rows &&
                    block.lengths.size() == block.num_rows &&
                    block.texts.size() == (shape.has_text ? block.num_rows : 0) &&
                    block.ids.size() == (shape.has_ids ? block.num_rows : 0) &&
                    block.sampling.size() == (shape.has_sampling ? block.num_rows : 0) &&
                    (shape.has_text || left_out || block.tokens.size() == tokens);
  if (!fits) throw Error("the process that reads the HDF5 input sent a block whose parts do not fit");
  return block;
}

Hdf5Input::Hdf5Input(const std::string& path, bool allow_external, std::function<void()> on_progress) try
    : path_(path), on_progress_(std::move(on_progress)), file_(path, allow_external) {
  open();
} catch (const BadInput&) {
  throw;
} catch (const Error& error) {
  throw BadInput(error.what());  // what HDF5 cannot read is the input's fault
}

hdf5::Dataset Hdf5Input::integers(const std::string& name) const {
  hdf5::Dataset data = file_.dataset("prompts/" + name);
  if (!data.is_integer() || data.shape().size() != 1)
    refuse(path_, "/prompts/{} must be a list of integers", name);
  return data;
}

void Hdf5Input::open() {
  shape_.has_text = file_.has("prompts/text");
  const bool has_tokens = file_.has("prompts/tokens");
  if (shape_.has_text && has_tokens)
    refuse(path_, "it has /prompts/text and /prompts/tokens; one of them must go");
  if (shape_.has_text) {
    text_.emplace(file_.dataset("prompts/text"));
    if (!text_->is_string() || text_->shape().size() != 1)
      refuse(path_, "/prompts/text must be a list of strings");
    shape_.num_rows = text_->rows();
  } else if (has_tokens) {
    if (!file_.has("prompts/offsets")) refuse(path_, "it has /prompts/tokens without /prompts/offsets");
    tokens_.emplace(integers("tokens"));
    offsets_.emplace(integers("offsets"));
    if (offsets_->rows() == 0) refuse(path_, "/prompts/offsets must have one more entry than there are rows");
    shape_.num_rows = offsets_->rows() - 1;
    check_offsets();
  } else {
    refuse(path_, "it has neither /prompts/tokens nor /prompts/text");
  }
  if (shape_.num_rows > kMostRows) refuse(path_, "it has {} rows, more than {}", shape_.num_rows, kMostRows);
  shape_.has_ids = file_.has("prompts/id");
  if (shape_.has_ids) open_ids();
  shape_.has_sampling = file_.has("prompts/sampling");
  if (shape_.has_sampling) open_sampling();
}

void Hdf5Input::open_sampling() {
  sampling_.emplace(file_.dataset("prompts/sampling"));
  if (!sampling_->is_string() || sampling_->shape().size() != 1)
    refuse(path_, "/prompts/sampling must be a list of strings");
  if (sampling_->rows() != shape_.num_rows)
    refuse(path_, "/prompts/sampling has {} entries for {} rows", sampling_->rows(), shape_.num_rows);
}

void Hdf5Input::open_ids() {
  id_.emplace(file_.dataset("prompts/id"));
  if (id_->shape().size() != 1 || !(id_->is_string() || id_->is_integer()))
    refuse(path_, "/prompts/id must be a list of strings or integers");
  if (id_->is_integer() && id_->value_bytes() > sizeof(uint64_t))
    refuse(path_, "/prompts/id has integers of {} bytes, more than 8", id_->value_bytes());
  if (id_->rows() != shape_.num_rows)
    refuse(path_, "/prompts/id has {} entries for {} rows", id_->rows(), shape_.num_rows);
  shape_.id_kind = id_->is_integer() ? IdKind::integer : IdKind::text;
}

/// Offsets that do not hold would shift every prompt behind: no row of such a file is good.
void Hdf5Input::check_offsets() const {
  int64_t last = 0;
  for (uint64_t begin = 0; begin < offsets_->rows(); begin += kOffsetsAtOnce) {
    if (on_progress_) on_progress_();
    const auto some = offsets_->read<int64_t>(begin, std::min(kOffsetsAtOnce, offsets_->rows() - begin));
    if (begin == 0 && some[0] != 0) refuse(path_, "/prompts/offsets begins with {}, not 0", some[0]);
    for (size_t i = 0; i < some.size(); ++i) {
      if (some[i] < last)
        refuse(path_, "/prompts/offsets goes back at entry {}: {} after {}", begin + i, some[i], last);
      last = some[i];
    }
  }
  if (static_cast<uint64_t>(last) != tokens_->rows())
    refuse(path_, "/prompts/offsets ends at {}, but /prompts/tokens has {}", last, tokens_->rows());
}

Hdf5Block Hdf5Input::read(uint64_t first_row) const {
  if (first_row >= shape_.num_rows) throw Error(fmt::format("{} has no row {}", path_, first_row));
  Hdf5Block block{.first_row = first_row,
                  .num_rows = std::min(Hdf5Block::kMostRows, shape_.num_rows - first_row)};
  try {
    if (shape_.has_text)
      read_texts(block);
    else
      read_tokens(block);
    if (id_) read_ids(block);
    if (sampling_) block.sampling = strings(*sampling_, "sampling", block, kMostSamplingBytes);
  } catch (const BadInput&) {
    throw;
  } catch (const Error& error) {
    throw BadInput(error.what());
  }
  return block;
}

/// As many rows as fit, and one at least.
void Hdf5Input::read_tokens(Hdf5Block& block) const {
  const auto offsets = offsets_->read<uint64_t>(block.first_row, block.num_rows + 1);
  // They were checked when the file was opened, and the file may be another by now.
  if (!std::is_sorted(offsets.begin(), offsets.end()) || offsets.back() > tokens_->rows())
    refuse(path_, "/prompts/offsets changed while the job ran");
  const auto fits = std::upper_bound(offsets.begin() + 1, offsets.end(), offsets[0] + Hdf5Block::kMostTokens);
  block.num_rows = static_cast<uint64_t>(std::max<std::ptrdiff_t>(1, fits - offsets.begin() - 1));
  for (uint64_t i = 0; i < block.num_rows; ++i) block.lengths.push_back(offsets[i + 1] - offsets[i]);
  const uint64_t count = offsets[block.num_rows] - offsets[0];
  // As int64: HDF5 clips what does not fit the type it reads into, and a clipped id could be a valid one.
  if (count <= kMostTokens) block.tokens = tokens_->read<int64_t>(offsets[0], count);
}

void Hdf5Input::read_texts(Hdf5Block& block) const {
  using hdf5::DatasetLimits;
  block.texts = text_->read_some_strings(block.first_row, block.num_rows, Hdf5Block::kMostTextBytes,
                                         DatasetLimits::kMostStringBytes, block.lengths);
  block.num_rows = block.texts.size();
}

void Hdf5Input::read_ids(Hdf5Block& block) const {
  block.ids.reserve(block.num_rows);
  // HDF5 clips what does not fit the type it reads into.
  if (id_->is_unsigned()) {
    for (const uint64_t id : id_->read<uint64_t>(block.first_row, block.num_rows))
      block.ids.push_back(std::to_string(id));
  } else if (id_->is_integer()) {
    for (const int64_t id : id_->read<int64_t>(block.first_row, block.num_rows))
      block.ids.push_back(std::to_string(id));
  } else {
    block.ids = strings(*id_, "id", block, kMostIdBytes);
  }
}

std::vector<std::string> Hdf5Input::strings(const hdf5::Dataset& data, const char* name,
                                            const Hdf5Block& block, uint64_t most) const {
  std::vector<std::string> all;
  std::vector<uint64_t> lengths;
  while (all.size() < block.num_rows) {
    auto some = data.read_some_strings(block.first_row + all.size(), block.num_rows - all.size(),
                                       Hdf5Block::kMostTextBytes, most, lengths);
    if (std::any_of(lengths.begin(), lengths.end(), [&](uint64_t bytes) { return bytes > most; }))
      refuse(path_, "/prompts/{} has a string of more than {} KiB", name, most >> 10);
    std::move(some.begin(), some.end(), std::back_inserter(all));
    lengths.clear();
  }
  return all;
}

}  // namespace moerun
