#include "io/checkpoint_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/json_file.h"
#include "moerun/error.h"

namespace moerun {

namespace fs = std::filesystem;

namespace {

constexpr JsonLimits kIndexLimits{.bytes = 64u << 20, .nesting = 8};
constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

/// The files that the index names, and which tensors it promises.
std::map<std::string, std::string> read_index(const std::string& path) {
  const nlohmann::json json = parse_json_object(read_text_file(path, kIndexLimits.bytes), path, kIndexLimits);
  const auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object()) throw BadInput(fmt::format("{}: has no weight_map", path));
  std::map<std::string, std::string> file_of;
  for (const auto& [name, value] : map->items()) {
    if (!value.is_string() || value.get<std::string>().find('/') != std::string::npos)
      throw BadInput(fmt::format("{}: the file of tensor {} is no file name", path, name));
    file_of[name] = value.get<std::string>();
  }
  if (file_of.empty()) throw BadInput(fmt::format("{}: its weight_map names no tensor", path));
  return file_of;
}

void refuse_adapter(const std::string& model_dir) {
  for (const char* const name : {"adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"})
    if (fs::exists(fs::path(model_dir) / name))
      throw BadInput(fmt::format(
          "{}: has {}, and adapters are not applied: merge it into the weights (PEFT: merge_and_unload, then "
          "save_pretrained), or take it out of the folder to run the weights without it",
          model_dir, name));
}

/// What a folder without safetensors has instead.
[[noreturn]] void refuse_absent(const std::string& model_dir) {
  std::set<std::string> others;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(model_dir, ignored)) {
    const std::string extension = entry.path().extension().string(), name = entry.path().filename().string();
    if ((extension == ".bin" || extension == ".pth" || extension == ".pt" || extension == ".gguf" ||
         extension == ".safetensors") &&
        others.size() < 3)
      others.insert(name);
  }
  throw BadInput(fmt::format(
      "{}: has neither {} nor {}{} (load_format: dummy needs none)", model_dir, kSingle, kIndex,
      others.empty()
          ? std::string()
          : fmt::format("; it has {}: save the model with transformers' save_pretrained, which writes these",
                        fmt::join(others, ", "))));
}

}  // namespace

CheckpointFiles find_checkpoint_files(const std::string& model_dir) {
  refuse_adapter(model_dir);
  const bool single = fs::exists(fs::path(model_dir) / kSingle),
             index = fs::exists(fs::path(model_dir) / kIndex);
  CheckpointFiles out;
  if (single && index)
    out.notes.push_back(
        fmt::format("{}: has {} beside {}: the single file is read, as transformers does, and the files that "
                    "the index names are "
                    "not (vLLM reads those); take one of the two out of the folder",
                    model_dir, kSingle, kIndex));
  if (single) {
    out.names.insert(kSingle);
  } else if (index) {
    out.promised = read_index(fmt::format("{}/{}", model_dir, kIndex));
    for (const auto& [name, file] : out.promised) out.names.insert(file);
  } else {
    refuse_absent(model_dir);
  }
  return out;
}

}  // namespace moerun
