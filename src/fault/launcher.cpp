#include "fault/launcher.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <string>
#include <string_view>

namespace moerun {

namespace {

bool is_open_mpi(pid_t launcher) {
  std::array<char, 4096> path{};
  const std::string link = fmt::format("/proc/{}/exe", launcher);
  if (readlink(link.c_str(), path.data(), path.size() - 1) < 0) return false;
  const std::string_view exe = path.data();
  const std::string_view name = exe.substr(exe.rfind('/') + 1);
  // Open MPI 4: mpirun is a link to orterun; 5: mpirun runs prterun.
  return name == "orterun" || name == "orted" || name == "prterun" || name == "prte" || name == "prted";
}

}  // namespace

pid_t find_launcher(int world_size) {
  return world_size > 1 || std::getenv("PMIX_RANK") != nullptr ? getppid() : 0;
}

void end_open_mpi_launcher(pid_t launcher) {
  if (launcher == 0 || !is_open_mpi(launcher)) return;
  // mpirun counts: the first signal ends the job in order, the second warns, the third ends mpirun itself.
  // Signals closer than its handler is fast would count as one.
  constexpr int kSignals = 3, kPauseMs = 150;
  for (int i = 0; i < kSignals && getppid() == launcher; ++i) {
    kill(launcher, SIGTERM);
    ::poll(nullptr, 0, kPauseMs);
  }
}

}  // namespace moerun
