#include "comm/nccl_exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "comm/mpi_env.h"
#include "device/cuda/cuda_check.h"
#include "device/cuda_device.h"
#include "kernels/cuda/gather_rows.h"
#include "kernels/cuda/rank_tree_sum.h"

namespace moerun {

NcclExchange::NcclExchange(MPI_Comm engine, Device& device, const ExchangeOptions& options,
                           Progress* progress, Choice choice)
    : engine_(engine),
      comm_(engine, "ep"),
      device_(device),
      stream_(static_cast<cudaStream_t>(cuda_stream(device))),
      options_(options),
      progress_(progress),
      choice_(choice) {
  const int64_t ranks = comm_.size(), rows = ranks * options.max_tokens, k = options.num_experts_per_tok;
  if (!one_subtree_a_rank(options.rank_of, comm_.size()))
    throw Error(
        fmt::format("parallel.all_to_all nccl needs a power of two of ranks that divides the experts evenly; "
                    "here {} experts are on {} ranks: use all_to_all: p2p or mpi",
                    options.rank_of.size(), ranks));
  const char* const what = "expert exchange";
  stopwatch_ = static_cast<Stopwatch*>(device.allocate(sizeof(Stopwatch), what));
  CUDA_CHECK(cudaMemsetAsync(stopwatch_, 0, sizeof(Stopwatch), stream_));
  rank_of_ = device.ints(static_cast<int64_t>(options.rank_of.size()), what).data;
  device.copy_to_device(rank_of_, options_.rank_of.data(), options.rank_of.size() * 4);
  tokens_ = device.tensor(rows, options.hidden, device.dtype(), what);
  weights_ = device.tensor(rows, k, DType::float32, what);
  ids_ = device.ints(rows * k, what);
  partials_ = device.tensor(rows, options.hidden, device.dtype(), what);
  returned_ = device.tensor(rows, options.hidden, device.dtype(), what);
  if (ranks < choice.min_ranks || options.max_tokens < choice.min_tokens) return;
  const int64_t leaving = options.max_tokens * std::min(ranks, k);
  sent_ = device.tensor(leaving, options.hidden, device.dtype(), what);
  token_index_ = device.ints(leaving, what).data;
  row_of_ = device.ints(rows, what).data;
}

void NcclExchange::begin_step(const std::vector<int32_t>& tokens_of_rank) {
  step_tokens_ = *std::max_element(tokens_of_rank.begin(), tokens_of_rank.end());
  if (step_tokens_ > options_.max_tokens)
    throw Error(fmt::format("expert exchange: a rank brings {} tokens, room was made for {}", step_tokens_,
                            options_.max_tokens));
  by_counts_ = comm_.size() >= choice_.min_ranks && step_tokens_ >= choice_.min_tokens;
}

Dispatched NcclExchange::dispatch(const Routed& tokens, Tensor sums) {
  (void)sums;
  own_tokens_ = tokens.x.rows;
  own_ids_ = tokens.topk_ids;
  launch_stopwatch_start(stopwatch_, stream_);
  if (by_counts_)
    send_by_counts(tokens);
  else
    gather_all(tokens);
  launch_stopwatch_stop(stopwatch_, stream_);
  const int64_t rows = rows_here();
  return {
      .tokens = {tokens_.first(rows), {ids_.data, rows * options_.num_experts_per_tok}, weights_.first(rows)},
      .partials = partials_.first(rows)};
}

void NcclExchange::gather_all(const Routed& tokens) {
  const auto choice_bytes = static_cast<size_t>(options_.num_experts_per_tok) * 4;
  constexpr int kNoExpert = 0xFF;  // bytes of −1
  NCCL_CHECK(ncclGroupStart());
  gather(tokens.x.data, tokens.x.row_bytes(), own_tokens_, tokens_.data, 0);
  gather(tokens.topk_ids.data, choice_bytes, own_tokens_, ids_.data, kNoExpert);
  gather(tokens.topk_weights.data, choice_bytes, own_tokens_, weights_.data, 0);
  NCCL_CHECK(ncclGroupEnd());
  comm_.settle();
}

void NcclExchange::gather(const void* own, size_t row_bytes, int64_t rows, void* all, int filler) {
  const size_t block = static_cast<size_t>(step_tokens_) * row_bytes,
               bytes = static_cast<size_t>(rows) * row_bytes;
  char* const mine = static_cast<char*>(all) + static_cast<size_t>(comm_.rank()) * block;
  if (bytes > 0) CUDA_CHECK(cudaMemcpyAsync(mine, own, bytes, cudaMemcpyDeviceToDevice, stream_));
  if (bytes < block) CUDA_CHECK(cudaMemsetAsync(mine + bytes, filler, block - bytes, stream_));
  NCCL_CHECK(ncclAllGather(mine, all, block, ncclInt8, comm_, stream_));
}

void NcclExchange::send_by_counts(const Routed& tokens) {
  const int64_t n = own_tokens_, k = options_.num_experts_per_tok;
  host_ids_.resize(static_cast<size_t>(n * k));
  if (n > 0) device_.copy_to_host(host_ids_.data(), tokens.topk_ids.data, host_ids_.size() * 4);
  list_tokens(host_ids_, options_.num_experts_per_tok, options_.rank_of, comm_.size(), lists_);
  in_count_.resize(lists_.count.size());
  {
    const Waiting waiting(progress_);
    MPI_CHECK(MPI_Alltoall(lists_.count.data(), 1, MPI_INT32_T, in_count_.data(), 1, MPI_INT32_T, engine_));
  }
  received_ = std::accumulate(in_count_.begin(), in_count_.end(), int64_t{0});
  // Pageable memory has been read when the call returns (CUDA Runtime API, "API synchronization behavior").
  device_.copy_to_device(token_index_, lists_.tokens.data(), lists_.tokens.size() * 4);
  device_.copy_to_device(row_of_, lists_.row_of.data(), lists_.row_of.size() * 4);
  const auto send = [&](const void* own, size_t row_bytes, void* in) {
    launch_gather_rows({.src = own,
                        .indices = token_index_,
                        .out = sent_.data,
                        .rows = static_cast<int64_t>(lists_.tokens.size()),
                        .row_bytes = static_cast<int64_t>(row_bytes)},
                       stream_);
    swap_rows(sent_.data, lists_.count, in, in_count_, row_bytes);
  };
  send(tokens.x.data, tokens.x.row_bytes(), tokens_.data);
  send(tokens.topk_ids.data, static_cast<size_t>(k) * 4, ids_.data);
  send(tokens.topk_weights.data, static_cast<size_t>(k) * 4, weights_.data);
}

void NcclExchange::swap_rows(const void* out, const std::vector<int32_t>& out_count, void* in,
                             const std::vector<int32_t>& in_count, size_t row_bytes) {
  const auto* from = static_cast<const char*>(out);
  auto* to = static_cast<char*>(in);
  NCCL_CHECK(ncclGroupStart());
  for (int peer = 0; peer < comm_.size(); ++peer) {
    const size_t leaving = static_cast<size_t>(out_count[static_cast<size_t>(peer)]) * row_bytes,
                 coming = static_cast<size_t>(in_count[static_cast<size_t>(peer)]) * row_bytes;
    if (leaving > 0) NCCL_CHECK(ncclSend(from, leaving, ncclInt8, peer, comm_, stream_));
    if (coming > 0) NCCL_CHECK(ncclRecv(to, coming, ncclInt8, peer, comm_, stream_));
    from += leaving;
    to += coming;
  }
  NCCL_CHECK(ncclGroupEnd());
  comm_.settle();
}

void NcclExchange::combine(Tensor sums) {
  launch_stopwatch_start(stopwatch_, stream_);
  if (by_counts_) {
    swap_rows(partials_.data, in_count_, returned_.data, lists_.count, partials_.row_bytes());
  } else {
    const std::vector<int32_t> step(static_cast<size_t>(comm_.size()), static_cast<int32_t>(step_tokens_));
    swap_rows(partials_.data, step, returned_.data, step, partials_.row_bytes());
  }
  launch_stopwatch_stop(stopwatch_, stream_);
  launch_rank_tree_sum({.partials = returned_.data,
                        .row_of = by_counts_ ? row_of_ : nullptr,
                        .ids = own_ids_.data,
                        .rank_of = rank_of_,
                        .out = sums.data,
                        .ranks = comm_.size(),
                        .k = options_.num_experts_per_tok,
                        .hidden = options_.hidden,
                        .num_tokens = static_cast<int32_t>(own_tokens_),
                        .step_tokens = static_cast<int32_t>(step_tokens_),
                        .dtype = sums.dtype},
                       stream_);
}

double NcclExchange::seconds() const {
  Stopwatch stopwatch;
  device_.copy_to_host(&stopwatch, stopwatch_, sizeof stopwatch);
  return static_cast<double>(stopwatch.total) * 1e-9;
}

}  // namespace moerun
