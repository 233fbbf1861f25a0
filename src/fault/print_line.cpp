#include "fault/print_line.h"

#include <unistd.h>

namespace moerun {

void print_line(const std::string& text) {
  const std::string line = "moerun: " + text + "\n";
  size_t done = 0;
  while (done < line.size()) {
    const ssize_t wrote = write(STDERR_FILENO, line.data() + done, line.size() - done);
    if (wrote <= 0) return;
    done += static_cast<size_t>(wrote);
  }
}

}  // namespace moerun
