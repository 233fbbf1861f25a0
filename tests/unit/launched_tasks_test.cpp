#include "comm/launched_tasks.h"

#include <map>

#include "tests/catch.h"

using namespace moerun;

namespace {

std::string said(std::optional<int> world_size, const std::map<std::string, std::string>& variables) {
  return unjoined_tasks(world_size, [&](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

}  // namespace

TEST_CASE("tasks that MPI did not join are told so, with the launcher's fix") {
  CHECK(said(1, {{"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_NTASKS", "4"}}) ==
        "Slurm started 4 tasks, and MPI sees 1 rank in each of them: start them with srun --mpi=pmix (srun "
        "--mpi=list says what this Slurm has), or with mpirun");
  CHECK(said(1, {{"OMPI_COMM_WORLD_SIZE", "8"}}).find("Open MPI's mpirun started 8 tasks") == 0);
  CHECK(said(1, {{"MPI_LOCALNRANKS", "2"}, {"PMI_SIZE", "2"}}).find("mpiexec started 2 tasks") == 0);
  CHECK(said(1, {{"PMI_SIZE", "3"}}).find("another MPI library") != std::string::npos);
  CHECK(said(1, {{"FLUX_JOB_SIZE", "2"}}).find("flux run -o pmi=pmix") != std::string::npos);
}

TEST_CASE("a world that is whole, and a job of one rank, are left alone") {
  CHECK(said(4, {{"SLURM_STEP_NUM_TASKS", "4"}}).empty());
  CHECK(said(1, {}).empty());
  CHECK(said(1, {{"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_NTASKS", "4"}}).empty());
  // A batch script of four tasks that starts one process without srun is no step of Slurm.
  CHECK(said(1, {{"SLURM_NTASKS", "4"}, {"SLURM_JOB_ID", "7"}}).empty());
  // mpirun -n 1 within a step: mpirun counts.
  CHECK(said(1, {{"OMPI_COMM_WORLD_SIZE", "1"}, {"SLURM_STEP_NUM_TASKS", "2"}}).empty());
  CHECK(said(1, {{"SLURM_STEP_NUM_TASKS", "many"}}).empty());
}

TEST_CASE("before MPI is started, tasks that have no way to each other are known") {
  CHECK(said({}, {{"SLURM_STEP_NUM_TASKS", "4"}}).find("Slurm started 4 tasks") == 0);
  CHECK(said({}, {{"SLURM_STEP_NUM_TASKS", "4"}, {"PMIX_RANK", "0"}}).empty());
  CHECK(said({}, {{"SLURM_STEP_NUM_TASKS", "4"}, {"PMI_RANK", "0"}}).empty());
  CHECK(said({}, {}).empty());
}
