#include "model/weight_source.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "model/stored_scales.h"
#include "moerun/error.h"

namespace moerun {

namespace {

/// How the checkpoint spells a tensor; null when it has none of its spellings.
const StoredAs* find_spelling(const TensorSpec& spec, const Checkpoint& checkpoint) {
  for (const StoredAs& as : spec.stored)
    if (checkpoint.find(as.name)) return &as;
  return nullptr;
}

/// What is wrong with how a checkpoint has a tensor.
void check_tensor(const TensorSpec& spec, const Checkpoint& checkpoint, std::vector<std::string>& faults) {
  const StoredAs* const as = find_spelling(spec, checkpoint);
  if (!as) {
    faults.push_back(fmt::format("tensor {} is missing from the checkpoint", spec.drawn_as));
    return;
  }
  const StoredTensor& stored = *checkpoint.find(as->name);
  if (stored.shape != as->shape)
    faults.push_back(fmt::format("{}: tensor {} has shape [{}] and config.json asks for [{}]", stored.file,
                                 as->name, fmt::join(stored.shape, ", "), fmt::join(as->shape, ", ")));
  check_scales(spec, stored, checkpoint, faults);
  if (spec.tied) return;
  for (const StoredAs& other : spec.stored)
    if (&other != as && checkpoint.find(other.name))
      faults.push_back(fmt::format("{}: tensor {} is there as {} too", stored.file, as->name, other.name));
}

bool same_numbers(const StoredTensor& a, const StoredTensor& b) {
  if (a.dtype != b.dtype || a.shape != b.shape) return false;
  size_t bytes = size_of(a.dtype);
  for (const int64_t size : a.shape) bytes *= static_cast<size_t>(size);
  return std::memcmp(a.data, b.data, bytes) == 0;
}

/// What to say where a tensor that is tied to another is stored with numbers of its own.
std::string untied(const TensorSpec& spec, const Checkpoint& checkpoint) {
  if (!spec.tied || spec.place.role != Role::lm_head) return "";
  const StoredTensor* const own = checkpoint.find(spec.stored.front().name);
  const StoredTensor* const other = checkpoint.find(spec.stored.back().name);
  if (!own || !other || same_numbers(*own, *other)) return "";
  return fmt::format(
      "{}: tensor {} has other numbers than {}, to which tie_word_embeddings: true of config.json ties it: "
      "its own "
      "are used, as transformers does",
      own->file, spec.stored.front().name, spec.stored.back().name);
}

/// The part of the checkpoint that no answer needs, and that a tensor is of; null where it is of none.
const PassedOver* part_passed_over(const ModelConfig& config, const std::string& name) {
  const auto at = std::find_if(config.passed_over.begin(), config.passed_over.end(),
                               [&](const PassedOver& part) { return name.starts_with(part.prefix); });
  return at == config.passed_over.end() ? nullptr : &*at;
}

}  // namespace

std::vector<std::string> check_tensors(const ModelConfig& config, const Checkpoint& checkpoint) {
  constexpr size_t kMost = 20;
  std::vector<std::string> faults;
  std::vector<std::string> notes;
  std::set<std::string> known, checked;
  for (const TensorSpec& spec : tensors_of(config, config.dtype)) {
    for (const StoredAs& as : spec.stored) known.insert(as.name);
    if (spec.format.is_fp8()) known.insert(spec.scales.name);
    // Several tensors may be parts of one of the checkpoint's.
    if (checked.insert(spec.drawn_as + ' ' + spec.stored.front().name).second)
      check_tensor(spec, checkpoint, faults);
    if (const std::string note = untied(spec, checkpoint); !note.empty()) notes.push_back(note);
  }
  StoredKeyValueScales scales = find_key_value_scales(config, checkpoint);
  known.insert(scales.names.begin(), scales.names.end());
  faults.insert(faults.end(), scales.faults.begin(), scales.faults.end());
  if (!scales.names.empty())
    notes.emplace_back(
        "the checkpoint has scales of keys and values (k_scale, v_scale): they are used where "
        "memory.kv_cache_dtype is fp8, and are of no account where it is not");
  std::map<std::string, size_t> passed_over;  // prefix → tensors
  for (const auto& [name, stored] : checkpoint.tensors()) {
    if (known.contains(name) || name.ends_with(".rotary_emb.inv_freq")) continue;
    if (const PassedOver* const part = part_passed_over(config, name))
      ++passed_over[part->prefix];
    else
      faults.push_back(fmt::format("{}: tensor {} is not one that config.json asks for{}", stored.file, name,
                                   why_not_read(name)));
  }
  for (const PassedOver& part : config.passed_over)
    if (const size_t count = passed_over[part.prefix]; count > 0)
      notes.push_back(fmt::format("{} of the checkpoint's tensors, {}*, are {}, which is not run", count,
                                  part.prefix, part.what));
  if (faults.empty()) return notes;
  const size_t more = faults.size() > kMost ? faults.size() - kMost : 0;
  faults.resize(faults.size() - more);
  if (more > 0) faults.push_back(fmt::format("… and {} more tensors", more));
  throw BadInput(fmt::format("{}", fmt::join(faults, "\n")));
}

HostMatrix CheckpointWeights::get(const TensorSpec& spec) const {
  const auto found = [&](const std::string& name) -> const StoredTensor& {
    const StoredTensor* const tensor = checkpoint_.find(name);
    if (!tensor) throw Error(fmt::format("tensor {} is missing from the checkpoint", name));
    return *tensor;
  };
  const StoredAs* const as = find_spelling(spec, checkpoint_);
  const StoredTensor& stored = found(as ? as->name : spec.drawn_as);
  HostMatrix out{
      .data = static_cast<const char*>(stored.data) + static_cast<size_t>(as->first) * size_of(stored.dtype),
      .dtype = stored.dtype,
      .rows = spec.rows,
      .cols = spec.cols,
      .row_stride = spec.cols};
  if (spec.format.is_fp8()) {
    const StoredTensor& scales = found(spec.scales.name);
    out.scales = {.data = scales.data,
                  .dtype = scales.dtype,
                  .block_rows = spec.scales.block_rows,
                  .block_cols = spec.scales.block_cols,
                  .stride = spec.scales.shape.back(),
                  .row0 = spec.scales.row0};
  }
  return out;
}

HostMatrix DummyWeightSource::get(const TensorSpec& spec) const {
  const std::string& name = spec.drawn_as;
  constexpr float kScale = 0.02F * 1.7320508F;
  uint64_t key = 0xcbf29ce484222325u;  // FNV-1a of the name
  for (const char c : name) key = (key ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  HostMatrix out{.rows = spec.rows,
                 .cols = spec.cols,
                 .row_stride = spec.cols,
                 .dummy = {.key = key,
                           .first = spec.stored.front().first,
                           .scale = kScale,
                           .offset = name.ends_with("norm.weight") ? 1.0F - spec.added : 0.0F}};
  if (spec.format.is_fp8()) {
    out.dtype = DType::e4m3;
    out.dummy.scale = kE4m3Max;
    out.scales.value = kScale / kE4m3Max;
  }
  return out;
}

HostMatrix part_of(const HostMatrix& whole, const TensorPart& part) {
  HostMatrix out = whole;
  const int64_t first = part.row0 * whole.row_stride + part.col0;
  if (whole.data)
    out.data = static_cast<const char*>(whole.data) + static_cast<size_t>(first) * size_of(whole.dtype);
  else
    out.dummy.first += first;
  out.rows = part.rows();
  out.cols = part.cols();
  out.scales.row0 += part.row0;
  out.scales.col0 += part.col0;
  return out;
}

}  // namespace moerun
