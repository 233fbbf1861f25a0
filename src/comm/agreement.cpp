#include "comm/agreement.h"

#include "comm/mpi_env.h"

namespace moerun {

StepAgreement::StepAgreement(MPI_Comm ep, Progress* progress) : ep_(ep), progress_(progress) {
  int size = 0;
  MPI_CHECK(MPI_Comm_size(ep, &size));
  bids_.resize(static_cast<size_t>(size));
}

const std::vector<StepBid>& StepAgreement::agree(StepBid mine) {
  static_assert(sizeof(StepBid) == 2 * sizeof(int32_t));
  const Waiting waiting(progress_);
  MPI_CHECK(MPI_Allgather(&mine, 2, MPI_INT32_T, bids_.data(), 2, MPI_INT32_T, ep_));
  return bids_;
}

}  // namespace moerun
