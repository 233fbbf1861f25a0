#include "comm/mpi_collective.h"

#include <fmt/format.h>

#include "comm/mpi_env.h"
#include "moerun/error.h"
#include "moerun/timed.h"

namespace moerun {

namespace {

void require(bool holds, const char* what) {
  if (!holds) throw Error(fmt::format("collective: {}", what));
}

}  // namespace

MpiCollective::MpiCollective(MPI_Comm comm, Device& device, size_t max_bytes, Progress* progress)
    : comm_(comm),
      device_(device),
      progress_(progress),
      in_(device, max_bytes),
      out_(device, max_bytes),
      max_bytes_(max_bytes) {
  MPI_CHECK(MPI_Comm_rank(comm_, &rank_));
  MPI_CHECK(MPI_Comm_size(comm_, &size_));
  shards_ = device_.allocate(max_bytes, "tensor-parallel exchange");
}

void MpiCollective::all_gather(Tensor in, Tensor out) {
  require(out.rows == size_ * in.rows && out.bytes() <= max_bytes_,
          "all_gather: out is not size · rows of in");
  if (in.rows == 0) return;
  const Timed timed(seconds_);
  const void* from = in_.read(in.data, in.bytes());
  void* to = out_.write(out.data);
  const bool in_place = from == static_cast<char*>(to) + static_cast<size_t>(rank_) * in.bytes();
  const int bytes = byte_count(in.bytes());
  {
    const Waiting waiting(progress_);
    MPI_CHECK(MPI_Allgather(in_place ? MPI_IN_PLACE : from, bytes, MPI_BYTE, to, bytes, MPI_BYTE, comm_));
  }
  out_.deliver(out.data, out.bytes());
}

void MpiCollective::reduce_scatter(Tensor in, Tensor out) {
  const Tensor shards{shards_, in.dtype, in.rows, in.cols};
  require(in.rows == size_ * out.rows, "reduce_scatter: in is not size · rows of out");
  all_to_all(in, shards);
  if (out.rows > 0) device_.tree_sum(shards, size_, out);
}

void MpiCollective::all_to_all(Tensor in, Tensor out) {
  require(in.rows == out.rows && in.rows % size_ == 0 && in.bytes() <= max_bytes_,
          "all_to_all: in and out are not size equal blocks");
  if (in.rows == 0) return;
  const Timed timed(seconds_);
  const void* from = in_.read(in.data, in.bytes());
  void* to = out_.write(out.data);
  const int bytes = byte_count(in.bytes() / static_cast<size_t>(size_));
  {
    const Waiting waiting(progress_);
    MPI_CHECK(MPI_Alltoall(from, bytes, MPI_BYTE, to, bytes, MPI_BYTE, comm_));
  }
  out_.deliver(out.data, out.bytes());
}

}  // namespace moerun
