#include "comm/nccl_exchange.h"

#include <fmt/format.h>

#include <algorithm>

#include "comm/p2p_exchange.h"
#include "device/cuda/cuda_check.h"
#include "kernels/cuda/rank_tree_sum.h"

namespace moerun {

NcclExchange::NcclExchange(const NcclComm& comm, Device& device, cudaStream_t stream, const Options& options)
    : comm_(comm), stream_(stream), options_(options) {
  if (!one_subtree_a_rank(options.rank_of, comm.size()))
    throw Error(
        fmt::format("parallel.all_to_all nccl needs a power of two of ranks that divides the experts evenly; "
                    "here {} experts are on {} ranks: use "
                    "all_to_all: mpi",
                    options.rank_of.size(), comm.size()));
  const int64_t rows = int64_t{comm.size()} * options.max_tokens;
  const char* const what = "expert exchange";
  rank_of_ = device.ints(static_cast<int64_t>(options.rank_of.size()), what).data;
  device.copy_to_device(rank_of_, options.rank_of.data(), options.rank_of.size() * 4);
  tokens_ = device.tensor(rows, options.hidden, device.dtype(), what);
  weights_ = device.tensor(rows, options.num_experts_per_tok, DType::float32, what);
  ids_ = device.ints(rows * options.num_experts_per_tok, what);
  partials_ = device.tensor(rows, options.hidden, device.dtype(), what);
  returned_ = device.tensor(rows, options.hidden, device.dtype(), what);
}

void NcclExchange::begin_step(const std::vector<int32_t>& tokens_of_rank) {
  step_tokens_ = *std::max_element(tokens_of_rank.begin(), tokens_of_rank.end());
  if (step_tokens_ > options_.max_tokens)
    throw Error(fmt::format("expert exchange: a rank brings {} tokens, room was made for {}", step_tokens_,
                            options_.max_tokens));
}

void NcclExchange::gather(const void* own, size_t row_bytes, int64_t rows, void* all, int filler) {
  const size_t block = static_cast<size_t>(step_tokens_) * row_bytes,
               bytes = static_cast<size_t>(rows) * row_bytes;
  char* const mine = static_cast<char*>(all) + static_cast<size_t>(comm_.rank()) * block;
  if (bytes > 0) CUDA_CHECK(cudaMemcpyAsync(mine, own, bytes, cudaMemcpyDeviceToDevice, stream_));
  if (bytes < block) CUDA_CHECK(cudaMemsetAsync(mine + bytes, filler, block - bytes, stream_));
  NCCL_CHECK(ncclAllGather(mine, all, block, ncclInt8, comm_, stream_));
}

Routed NcclExchange::dispatch(const Routed& tokens) {
  own_tokens_ = tokens.x.rows;
  own_ids_ = tokens.topk_ids;
  const int64_t rows = comm_.size() * step_tokens_, k = options_.num_experts_per_tok;
  NCCL_CHECK(ncclGroupStart());
  gather(tokens.x.data, tokens.x.row_bytes(), own_tokens_, tokens_.data, 0);
  gather(tokens.topk_ids.data, static_cast<size_t>(k) * 4, own_tokens_, ids_.data,
         0xFF);  // ids of −1: no expert
  gather(tokens.topk_weights.data, static_cast<size_t>(k) * 4, own_tokens_, weights_.data, 0);
  NCCL_CHECK(ncclGroupEnd());
  comm_.settle();
  return {tokens_.first(rows), {ids_.data, rows * k}, weights_.first(rows)};
}

void NcclExchange::combine(Tensor out) {
  const size_t block = static_cast<size_t>(step_tokens_) * partials_.row_bytes();
  NCCL_CHECK(ncclGroupStart());
  for (int peer = 0; peer < comm_.size(); ++peer) {
    const size_t at = static_cast<size_t>(peer) * block;
    NCCL_CHECK(
        ncclSend(static_cast<const char*>(partials_.data) + at, block, ncclInt8, peer, comm_, stream_));
    NCCL_CHECK(ncclRecv(static_cast<char*>(returned_.data) + at, block, ncclInt8, peer, comm_, stream_));
  }
  NCCL_CHECK(ncclGroupEnd());
  comm_.settle();
  launch_rank_tree_sum({.partials = returned_.data,
                        .ids = own_ids_.data,
                        .rank_of = rank_of_,
                        .out = out.data,
                        .ranks = comm_.size(),
                        .k = options_.num_experts_per_tok,
                        .hidden = options_.hidden,
                        .num_tokens = static_cast<int32_t>(own_tokens_),
                        .step_tokens = static_cast<int32_t>(step_tokens_),
                        .dtype = out.dtype},
                       stream_);
}

}  // namespace moerun
