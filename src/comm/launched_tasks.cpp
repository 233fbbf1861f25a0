#include "comm/launched_tasks.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <string_view>

namespace moerun {

namespace {

struct Launcher {
  const char* variable;  ///< holds the number of processes that it started together
  const char* name;
  const char* fix;
};

constexpr const char* kOtherMpi =
    "this program was built with another MPI library than the launcher's: start it with that library's own "
    "mpirun";

// The innermost launcher first: mpirun may itself run in a step of Slurm, which counts otherwise.
constexpr std::array<Launcher, 6> kLaunchers{{
    {"OMPI_COMM_WORLD_SIZE", "Open MPI's mpirun", kOtherMpi},
    {"MPI_LOCALNRANKS", "mpiexec", kOtherMpi},  // Hydra: MPICH, Intel MPI
    {"SLURM_STEP_NUM_TASKS", "Slurm",
     "start them with srun --mpi=pmix (srun --mpi=list says what this Slurm has), or with mpirun"},
    {"FLUX_JOB_SIZE", "Flux", "start them with flux run -o pmi=pmix, or with mpirun"},
    {"JSM_NAMESPACE_SIZE", "jsrun", kOtherMpi},
    {"PMI_SIZE", "a launcher that speaks PMI", kOtherMpi},
}};

int number_of(const char* text) {
  const std::string_view digits = text;
  int number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  return error == std::errc() && end == digits.data() + digits.size() ? number : 0;
}

}  // namespace

std::string unjoined_tasks(std::optional<int> world_size, const Environment& environment) {
  const bool has_way = environment("PMIX_RANK") || environment("PMI_RANK") || environment("PMI_FD");
  if (world_size ? *world_size != 1 : has_way) return "";
  for (const Launcher& launcher : kLaunchers) {
    const char* const value = environment(launcher.variable);
    if (!value) continue;
    const int tasks = number_of(value);
    if (tasks <= 1) return "";
    return fmt::format("{} started {} tasks, and MPI sees 1 rank in each of them: {}", launcher.name, tasks,
                       launcher.fix);
  }
  return "";
}

}  // namespace moerun
