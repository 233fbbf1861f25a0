#pragma once
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "base/file_descriptor.h"

namespace moerun {

/// An open directory. Files are named relative to it, so it stays the same directory whatever happens to its
/// path meanwhile; a link in a file's place is refused, never followed, and so is what is no regular file (a
/// pipe would wait for ever). All members throw FileError that names the whole path. Thread contract: const
/// members may be called from any thread.
class Directory {
 public:
  enum class Links { followed, refused };  ///< where the directory's own name is one

  Directory(std::filesystem::path path, Links links);

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path path_of(const std::string& name) const { return path_ / name; }

  /// Something has the name, be it a link that leads nowhere.
  bool has(const std::string& name) const;
  FileDescriptor open(const std::string& name) const;  ///< for reading
  FileDescriptor open_to_append(const std::string& name) const;
  /// A new file for writing: what had the name is removed first, and nobody else's file is taken for it.
  FileDescriptor create(const std::string& name) const;
  /// A file for reading and writing that may be there already.
  FileDescriptor open_or_create(const std::string& name) const;
  /// The whole of a file. Throws Error where it has more than `most_bytes`.
  std::string read(const std::string& name, uint64_t most_bytes) const;

  /// As write_file_durably, by way of `name`.tmp.
  void write_durably(const std::string& name, std::initializer_list<std::string_view> parts) const;
  /// The same without a sync, for what is written anew every few seconds: who reads it finds the old or the
  /// new text whole, and after a power cut perhaps neither.
  void replace(const std::string& name, std::string_view text) const;
  /// Gives the file `from`, whose bytes are synced, the name `to` for good.
  void rename_durably(const std::string& from, const std::string& to) const;
  /// The same, unless something has the name `to`: then it is false, and nothing has changed. A file system
  /// that can neither rename so nor link looks first, which leaves a moment in between.
  bool rename_new_durably(const std::string& from, const std::string& to) const;
  /// Removes a file or link if it is there; false when it was not.
  bool remove(const std::string& name) const;
  void sync() const;

  /// All but "." and "..", sorted.
  std::vector<std::string> names() const;

 private:
  FileDescriptor open_with(const std::string& name, int flags) const;
  bool rename_new(const std::string& from, const std::string& to) const;
  void rename(const std::string& from, const std::string& to) const;
  void write_to_temporary(const std::string& name, std::initializer_list<std::string_view> parts,
                          bool durably) const;

  std::filesystem::path path_;
  FileDescriptor directory_;
};

/// Whether the path is a symbolic link, wherever it leads.
bool is_link(const std::filesystem::path& path);

}  // namespace moerun
