#include "io/file_state.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "moerun/error.h"

namespace moerun {

std::string state_of_files(const std::vector<std::string>& paths) {
  std::string out;
  for (const std::string& path : paths) {
    struct stat status {};
    if (stat(path.c_str(), &status) != 0)
      throw BadInput(fmt::format("{}: cannot be read ({})", path, std::strerror(errno)));
    // Not st_ctime: another link to a file, or other rights, change nothing in it.
    out += fmt::format("{} {} {} {} {}.{:09}\n", path, status.st_dev, status.st_ino, status.st_size,
                       status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
  }
  return out;
}

}  // namespace moerun
