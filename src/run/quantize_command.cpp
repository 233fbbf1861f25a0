#include "run/quantize_command.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <vector>

#include "base/json_file.h"
#include "io/directory.h"
#include "io/durable_file.h"
#include "io/safetensors.h"
#include "io/safetensors_writer.h"
#include "model/config.h"
#include "model/quantise_blocks.h"
#include "model/quantization.h"
#include "model/weight_source.h"
#include "moerun/error.h"

namespace moerun {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char *kConfig = "config.json", *kIndex = "model.safetensors.index.json";
constexpr double kGB = 1e9;

/// A tensor of the new folder, and what it is made of.
struct Made {
  NewTensor tensor;
  const StoredTensor* copied = nullptr;  ///< byte for byte; null: in FP8
  const TensorSpec* spec = nullptr;      ///< of what is in FP8
  bool scales = false;                   ///< this is its scales, which are written with its values
};

/// A file of which every byte has its place from the beginning.
class PlacedFile {
 public:
  PlacedFile(std::string path, const std::vector<Made>& all)
      : path_(std::move(path)), file_(open_file(path_, O_WRONLY | O_CREAT | O_EXCL)) {
    std::vector<NewTensor> tensors(all.size());
    std::transform(all.begin(), all.end(), tensors.begin(), [](const Made& made) { return made.tensor; });
    const std::string header = safetensors_header(tensors);
    write_all(file_.get(), header, path_);
    uint64_t end = header.size();
    for (const NewTensor& tensor : tensors) {
      begin_[tensor.name] = end;
      end += tensor.bytes();
    }
  }
  void write(const std::string& tensor, const void* data, uint64_t bytes) {
    if (::lseek(file_.get(), static_cast<off_t>(begin_.at(tensor)), SEEK_SET) < 0)
      throw FileError("write", path_, errno);
    write_all(file_.get(), {static_cast<const char*>(data), static_cast<size_t>(bytes)}, path_);
  }
  void finish() {
    sync_file(file_.get(), path_);
    close_file(file_, path_);
  }

 private:
  std::string path_;
  FileDescriptor file_;
  std::map<std::string, uint64_t> begin_;  // of tensors
};

/// OUT while it is being made: a folder of its own name, which one process at a time writes.
class PartialFolder {
 public:
  explicit PartialFolder(fs::path out) : out_(std::move(out)), path_(out_.string() + ".partial") {
    make_directories(path_);
    lock_ = open_file(path_, O_RDONLY | O_DIRECTORY);
    if (::flock(lock_.get(), LOCK_EX | LOCK_NB) != 0)
      throw BadInput(fmt::format("{}: another moerun quantize is writing it", path_.string()));
    for (const auto& entry : fs::directory_iterator(path_))
      fs::remove_all(entry);  // of a run that was killed
  }
  std::string file(const std::string& name) const { return (path_ / name).string(); }
  /// Gives the folder, whose files are on disk, its name.
  void finish() const {
    Directory(path_, Directory::Links::refused).sync();
    const Directory parent(directory_of(out_), Directory::Links::followed);
    if (!parent.rename_new_durably(path_.filename(), out_.filename()))
      throw BadInput(
          fmt::format("{}: is there by now; what was made is in {}", out_.string(), path_.string()));
  }

 private:
  fs::path out_, path_;
  FileDescriptor lock_;
};

/// Matrices that stay as they are, as in published checkpoints: small ones on which much depends.
bool is_kept(const TensorSpec& spec) {
  switch (spec.place.role) {
    case Role::router:
    case Role::shared_gate:
    case Role::lm_head:
    case Role::delta_b:
    case Role::delta_a:
      return true;
    default:
      return false;
  }
}

std::string module_of(const TensorSpec& spec) {
  return fs::path(spec.stored.front().name).replace_extension();
}

class Quantiser {
 public:
  Quantiser(fs::path in, const fs::path& out)
      : in_(std::move(in)),
        config_(read_model_config(in_.string())),
        checkpoint_(Checkpoint::open(in_.string())) {
    if (config_.quantization.is_fp8()) throw BadInput(fmt::format("{}: is quantised already", in_.string()));
    std::vector<std::string> notes = checkpoint_.notes();
    for (std::string& note : check_tensors(config_, checkpoint_)) notes.push_back(std::move(note));
    if (!find_key_value_scales(config_, checkpoint_).names.empty())
      throw BadInput(
          fmt::format("{}: scales of keys and values (k_scale, v_scale) are not taken along", in_.string()));
    for (const std::string& note : notes) fmt::print(stderr, "moerun: {}\n", note);
    std::error_code ignored;
    if (fs::symlink_status(out, ignored).type() != fs::file_type::not_found)
      throw BadInput(fmt::format("{}: is there already: name a folder that is not", out.string()));
    ModelConfig quantised = config_;
    quantised.quantization = {
        .scales = ".weight_scale_inv", .block_rows = kScaleGroup, .block_cols = kScaleGroup};
    for (const TensorSpec& spec : tensors_of(config_, config_.dtype))
      if (is_kept(spec)) quantised.quantization.not_converted.insert(module_of(spec));
    specs_ = tensors_of(quantised, config_.dtype);
    specs_in_ = tensors_of(config_, config_.dtype);
    for (size_t i = 0; i < specs_.size(); ++i) {
      const std::vector<StoredAs>& spellings = specs_in_[i].stored;
      const auto found = std::find_if(spellings.begin(), spellings.end(), [&](const StoredAs& as) {
        return checkpoint_.find(as.name) != nullptr;
      });
      if (found != spellings.end()) users_[found->name].push_back(&specs_[i]);
    }
    out_.emplace(out);
  }

  void run() {
    for (const std::string& file : checkpoint_.files()) write_weights(file);
    if (fs::path(checkpoint_.files().front()).filename() != "model.safetensors") write_index();
    copy_others();
    write_config();
    out_->finish();
  }

 private:
  std::vector<Made> made_of(const std::string& file) const;
  void write_weights(const std::string& file);
  void write_index() const;
  void write_config() const;
  void copy_others() const;
  /// The weights of a matrix as IN has them.
  HostMatrix weights_of(const TensorSpec& spec) const {
    HostMatrix all =
        CheckpointWeights(checkpoint_).get(specs_in_[static_cast<size_t>(&spec - specs_.data())]);
    all.rows = spec.stored.front().shape.front();  // also of those behind a part of one
    return all;
  }
  void say_progress();

  fs::path in_;
  ModelConfig config_;
  Checkpoint checkpoint_;
  std::vector<TensorSpec> specs_, specs_in_;  // quantised, and as IN has them; one for one
  std::map<std::string, std::vector<const TensorSpec*>>
      users_;  // a stored tensor's name → what is made of it
  std::optional<PartialFolder> out_;
  std::map<std::string, std::string> index_;  // tensor → file
  uint64_t written_ = 0;                      // bytes of tensors
  std::chrono::steady_clock::time_point said_ = std::chrono::steady_clock::now();
};

/// What a file of the new folder holds in the place of one of IN's.
std::vector<Made> Quantiser::made_of(const std::string& file) const {
  std::vector<Made> out;
  for (const auto& [name, stored] : checkpoint_.tensors()) {
    if (stored.file != file) continue;
    const auto users = users_.find(name);
    if (users == users_.end() || !users->second.front()->format.is_fp8()) {
      out.push_back({.tensor = {name, stored.dtype, stored.shape}, .copied = &stored});
      continue;
    }
    for (const TensorSpec* const spec : users->second) {
      if (spec->scales.row0 > 0) continue;  // rows of what its first part stands for
      out.push_back({.tensor = {spec->drawn_as, DType::e4m3, spec->stored.front().shape}, .spec = spec});
      out.push_back(
          {.tensor = {spec->scales.name, DType::float32, spec->scales.shape}, .spec = spec, .scales = true});
    }
  }
  std::sort(out.begin(), out.end(),
            [](const Made& a, const Made& b) { return stands_before(a.tensor, b.tensor); });
  return out;
}

void Quantiser::write_weights(const std::string& file) {
  const std::vector<Made> all = made_of(file);
  const std::string name = fs::path(file).filename();
  PlacedFile out(out_->file(name), all);
  for (const Made& made : all) {
    index_[made.tensor.name] = name;
    written_ += made.tensor.bytes();
    if (made.copied) {
      out.write(made.tensor.name, made.copied->data, made.tensor.bytes());
    } else if (!made.scales) {
      const BlockMatrix matrix = quantise_blocks(weights_of(*made.spec), made.spec->drawn_as);
      out.write(made.tensor.name, matrix.values.data(), matrix.values.size());
      out.write(made.spec->scales.name, matrix.scales.data(), matrix.scales.size() * sizeof(float));
    }
    say_progress();
  }
  out.finish();
}

void Quantiser::write_index() const {
  Json index;
  index["metadata"]["total_size"] = written_;
  index["weight_map"] = index_;
  write_file_durably(out_->file(kIndex), {index.dump(2), "\n"});
}

void Quantiser::write_config() const {
  Json config = Json::parse(read_text_file((in_ / kConfig).string(), JsonLimits().bytes));
  std::vector<std::string> kept;
  for (const TensorSpec& spec : specs_)
    if (is_kept(spec)) kept.push_back(module_of(spec));
  config["quantization_config"] = {{"quant_method", "fp8"},
                                   {"fmt", "e4m3"},
                                   {"activation_scheme", "dynamic"},
                                   {"weight_block_size", {kScaleGroup, kScaleGroup}},
                                   {"modules_to_not_convert", kept}};
  write_file_durably(out_->file(kConfig), {config.dump(2), "\n"});
}

/// Files beside the weights and config.json; of folders and of weights in other formats a line says that they
/// stay behind.
void Quantiser::copy_others() const {
  const std::set<std::string> weights{".safetensors", ".bin",  ".pt", ".pth",
                                      ".gguf",        ".onnx", ".h5", ".msgpack"};
  for (const auto& entry : fs::directory_iterator(in_)) {
    const std::string name = entry.path().filename();
    if (name == kConfig || name == kIndex || entry.path().extension() == ".safetensors") continue;
    if (!entry.is_regular_file() || weights.contains(entry.path().extension())) {
      fmt::print(stderr, "moerun: {} is not copied\n", entry.path().string());
      continue;
    }
    write_file_durably(out_->file(name), {read_file(entry.path())});
  }
}

void Quantiser::say_progress() {
  const auto now = std::chrono::steady_clock::now();
  if (now - said_ < std::chrono::seconds(5)) return;
  said_ = now;
  fmt::print(stderr, "moerun: {:.1f} GB written\n", static_cast<double>(written_) / kGB);
}

}  // namespace

int quantize_main(const std::string& in, const std::string& out) {
  fs::path target = fs::path(out).lexically_normal();
  if (!target.has_filename()) target = target.parent_path();
  Quantiser quantiser(in, target);
  quantiser.run();
  fmt::print(stderr, "moerun: {} is made\n", target.string());
  return static_cast<int>(ExitCode::ok);
}

}  // namespace moerun
