#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "io/hdf5_guard.h"
#include "moerun/record.h"

namespace moerun {

/// What an HDF5 input has.
struct Hdf5InputShape {
  uint64_t num_rows = 0;
  bool has_text = false;  ///< else token ids
  bool has_ids = false;
  IdKind id_kind = IdKind::text;
  bool has_sampling = false;
};

/// Rows that lie together. Which rows a block has depends on its first row and on the file's contents alone.
struct Hdf5Block {
  static constexpr uint64_t kMostRows = 4096;
  static constexpr uint64_t kMostTokens = uint64_t{1} << 20;      ///< unless one row has more
  static constexpr uint64_t kMostTextBytes = uint64_t{64} << 20;  ///< unless one row has more

  uint64_t first_row = 0, num_rows = 0;
  std::vector<uint64_t> lengths;      ///< [num_rows] of token ids: how many; of text: bytes
  std::vector<int64_t> tokens;        ///< one row's after the other's; empty where a single row has too many
  std::vector<std::string> texts;     ///< [num_rows]; empty where a string is too long
  std::vector<std::string> ids;       ///< [num_rows] where there are ids; integers in decimal
  std::vector<std::string> sampling;  ///< [num_rows] where there is one: JSON, or empty

  std::string pack() const;
  /// Throws Error unless `bytes` is a block whose parts fit each other.
  static Hdf5Block unpack(const std::string& bytes, const Hdf5InputShape& shape);
};

/// The prompts of an HDF5 file: /prompts/tokens with /prompts/offsets, or /prompts/text; /prompts/id and
/// /prompts/sampling where they are there. Everything is checked before it is used: every number of the file
/// is taken for hostile. HDF5 itself is not proof against damaged files, which is why a process of its own
/// does this (hdf5_child.h). Throws BadInput.
class Hdf5Input {
 public:
  static constexpr uint64_t kMostRows = uint64_t{1} << 32;
  static constexpr uint64_t kMostTokens = uint64_t{1} << 24;  ///< of a row
  static constexpr uint64_t kMostIdBytes = uint64_t{64} << 10;
  static constexpr uint64_t kMostSamplingBytes = uint64_t{4} << 20;  ///< of a row

  /// `on_progress` is called now and then while a large file is opened.
  Hdf5Input(const std::string& path, bool allow_external, std::function<void()> on_progress);

  const Hdf5InputShape& shape() const { return shape_; }
  Hdf5Block read(uint64_t first_row) const;

 private:
  hdf5::Dataset integers(const std::string& name) const;
  void open();
  void open_ids();
  void open_sampling();
  void check_offsets() const;
  void read_tokens(Hdf5Block& block) const;
  void read_texts(Hdf5Block& block) const;
  void read_ids(Hdf5Block& block) const;
  /// The block's strings of a dataset that is a list of them; throws BadInput where one has more than `most`
  /// bytes.
  std::vector<std::string> strings(const hdf5::Dataset& data, const char* name, const Hdf5Block& block,
                                   uint64_t most) const;

  std::string path_;
  std::function<void()> on_progress_;
  hdf5::CheckedFile file_;
  Hdf5InputShape shape_;
  std::optional<hdf5::Dataset> tokens_, offsets_, text_, id_, sampling_;
};

}  // namespace moerun
