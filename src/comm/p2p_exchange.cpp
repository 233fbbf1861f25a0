#include "comm/p2p_exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "device/cuda/cuda_check.h"
#include "moerun/error.h"

namespace moerun {

bool one_subtree_a_rank(const std::vector<int32_t>& rank_of, int ranks) {
  const auto experts = static_cast<int32_t>(rank_of.size());
  if (!std::has_single_bit(static_cast<unsigned>(ranks)) || ranks > kMaxP2pRanks) return false;
  const auto block =
      static_cast<int32_t>(std::bit_ceil(static_cast<unsigned>((experts + ranks - 1) / ranks)));
  for (int32_t expert = 0; expert < experts; ++expert)
    if (rank_of[static_cast<size_t>(expert)] != expert / block) return false;
  return true;
}

P2pExchange::P2pExchange(MPI_Comm engine, Device& device, cudaStream_t stream, const Options& options)
    : stream_(stream), dtype_(device.dtype()) {
  MPI_Comm_rank(engine, &rank_);
  MPI_Comm_size(engine, &ranks_);
  if (!one_subtree_a_rank(options.rank_of, ranks_))
    throw Error(
        fmt::format("parallel.all_to_all p2p needs a power of two of ranks (at most {}) that divides the "
                    "experts evenly; here {} experts are on {} ranks: "
                    "use all_to_all: mpi or nccl",
                    kMaxP2pRanks, options.rank_of.size(), ranks_));
  MPI_Comm node = MPI_COMM_NULL;
  MPI_Comm_split_type(engine, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &node);
  int on_this_node = 0;
  MPI_Comm_size(node, &on_this_node);
  MPI_Comm_free(&node);
  if (on_this_node != ranks_)
    throw Error(
        fmt::format("parallel.all_to_all p2p needs all {} ranks of an engine on one node; rank {} shares its "
                    "node with {}: use nccl or mpi",
                    ranks_, rank_, on_this_node));

  args_.layout = {.ranks = ranks_,
                  .max_tokens = options.max_tokens,
                  .hidden = options.hidden,
                  .k = options.num_experts_per_tok,
                  .element_bytes = static_cast<int32_t>(size_of(dtype_))};
  args_.rank = rank_;
  args_.dtype = dtype_;
  args_.deadline_ns = static_cast<uint64_t>(options.deadline.count());
  const size_t bytes = args_.layout.bytes();
  // IPC handles name whole allocations, so the window is one of its own rather than a piece of the arena.
  void* window = nullptr;
  CUDA_CHECK(cudaMalloc(&window, bytes));
  window_ = static_cast<char*>(window);
  args_.own_window = window_;
  CUDA_CHECK(cudaMemset(window_, 0, bytes));
  CUDA_CHECK(cudaDeviceSynchronize());

  cudaIpcMemHandle_t handle{};
  CUDA_CHECK(cudaIpcGetMemHandle(&handle, window_));
  std::vector<cudaIpcMemHandle_t> handles(static_cast<size_t>(ranks_));
  MPI_Allgather(&handle, sizeof handle, MPI_BYTE, handles.data(), sizeof handle, MPI_BYTE, engine);
  std::vector<char*> windows(static_cast<size_t>(ranks_));
  for (int peer = 0; peer < ranks_; ++peer) {
    void* opened = window_;
    if (peer != rank_) {
      CUDA_CHECK(
          cudaIpcOpenMemHandle(&opened, handles[static_cast<size_t>(peer)], cudaIpcMemLazyEnablePeerAccess));
      opened_.push_back(opened);
    }
    windows[static_cast<size_t>(peer)] = static_cast<char*>(opened);
  }

  const auto to_device = [&](const void* host, size_t size, const char* what) {
    void* const data = device.allocate(size, what);
    device.copy_to_device(data, host, size);
    return data;
  };
  const std::vector<uint32_t> zeros(4, 0);
  args_.windows =
      static_cast<char* const*>(to_device(windows.data(), windows.size() * sizeof(char*), "expert exchange"));
  args_.rank_of = static_cast<const int32_t*>(
      to_device(options.rank_of.data(), options.rank_of.size() * 4, "expert exchange"));
  args_.epoch = static_cast<uint64_t*>(to_device(zeros.data(), sizeof(uint64_t), "expert exchange"));
  args_.blocks_done =
      static_cast<uint32_t*>(to_device(zeros.data(), 2 * sizeof(uint32_t), "expert exchange"));
  void* fault = nullptr;
  CUDA_CHECK(cudaHostAlloc(&fault, sizeof(P2pFault), cudaHostAllocMapped));
  fault_ = new (fault) P2pFault;
  args_.fault = fault_;
  partials_ =
      device.tensor(static_cast<int64_t>(args_.layout.rows()), options.hidden, dtype_, "expert exchange");
  device.synchronize();
  MPI_Barrier(engine);  // no peer may push before every window is cleared and open
}

P2pExchange::~P2pExchange() {
  for (void* window : opened_) cudaIpcCloseMemHandle(window);
  cudaFree(window_);
  cudaFreeHost(fault_);
}

void P2pExchange::begin_step(const std::vector<int32_t>& tokens_of_rank) {
  step_tokens_ = *std::max_element(tokens_of_rank.begin(), tokens_of_rank.end());
  if (step_tokens_ > args_.layout.max_tokens)
    throw Error(fmt::format("expert exchange: a rank brings {} tokens, windows hold {}", step_tokens_,
                            args_.layout.max_tokens));
}

Routed P2pExchange::dispatch(const Routed& tokens) {
  own_ = tokens;
  launch_p2p_dispatch(args_, tokens.x.data, tokens.topk_ids.data,
                      static_cast<const float*>(tokens.topk_weights.data),
                      static_cast<int32_t>(tokens.x.rows), step_tokens_, stream_);
  const int64_t rows = int64_t{ranks_} * step_tokens_;
  const P2pLayout& layout = args_.layout;
  return {.x = {window_ + layout.tokens(), dtype_, rows, layout.hidden},
          .topk_ids = {reinterpret_cast<int32_t*>(window_ + layout.ids()), rows * layout.k},
          .topk_weights = {window_ + layout.weights(), DType::float32, rows, layout.k}};
}

Tensor P2pExchange::partials() { return partials_.first(int64_t{ranks_} * step_tokens_); }

void P2pExchange::combine(Tensor out) {
  launch_p2p_combine(args_, partials_.data, own_.topk_ids.data, out.data, static_cast<int32_t>(own_.x.rows),
                     step_tokens_, stream_);
}

std::string P2pExchange::fault() const {
  if (fault_->phase == 0) return {};
  return fmt::format("expert exchange: rank {} waited for rank {} in {} and gave up", rank_, fault_->peer,
                     fault_->phase == 1 ? "dispatch" : "combine");
}

}  // namespace moerun
