// Preloaded into a job: on rank FAULTY_RANK the step's agreement (the all-gather of two int32 a rank) fails
// from its 40th call on, and the engine thread throws.
#include <mpi.h>

#include <cstdlib>
#include <cstring>

extern "C" int MPI_Allgather(const void* sent, int sent_count, MPI_Datatype sent_type, void* received,
                             int received_count, MPI_Datatype received_type, MPI_Comm comm) {
  static int calls = 0;
  const char* const rank = std::getenv("OMPI_COMM_WORLD_RANK");
  const char* const faulty = std::getenv("FAULTY_RANK");
  if (sent_count == 2 && sent_type == MPI_INT32_T && rank && faulty && std::strcmp(rank, faulty) == 0 &&
      ++calls >= 40)
    return MPI_ERR_OTHER;
  return PMPI_Allgather(sent, sent_count, sent_type, received, received_count, received_type, comm);
}
