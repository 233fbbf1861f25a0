#pragma once
#include <map>
#include <set>
#include <string>
#include <vector>

namespace moerun {

/// Which files of a model's folder hold its weights.
struct CheckpointFiles {
  std::set<std::string> names;
  std::map<std::string, std::string> promised;  ///< tensor → file, where an index says so
  std::vector<std::string> notes;               ///< sentences for the user, where the folder says two things
};

/// As transformers 5.24 chooses: `model.safetensors` where it is there, also beside an index (which is then
/// said), else what `model.safetensors.index.json` names. Throws BadInput for an adapter (nothing merges it),
/// for a folder without weights in this format, and for an index that is none.
CheckpointFiles find_checkpoint_files(const std::string& model_dir);

}  // namespace moerun
