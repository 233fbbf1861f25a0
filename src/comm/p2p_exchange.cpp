#include "comm/p2p_exchange.h"

#include <fmt/format.h>

#include <algorithm>

#include "comm/mpi_env.h"
#include "device/cuda/cuda_check.h"
#include "device/cuda_device.h"
#include "moerun/error.h"

namespace moerun {

PeerMemory::PeerMemory(MPI_Comm engine, Device& device, char* own) {
  int rank = 0, ranks = 1;
  MPI_CHECK(MPI_Comm_rank(engine, &rank));
  MPI_CHECK(MPI_Comm_size(engine, &ranks));
  // A handle names a whole allocation, which here is all of a rank's memory.
  struct Card {
    cudaIpcMemHandle_t handle;
    uint64_t offset;
  } mine{};
  const CudaMemory memory = cuda_memory(device);
  CUDA_CHECK(cudaIpcGetMemHandle(&mine.handle, memory.base));
  mine.offset = static_cast<uint64_t>(own - memory.base);
  std::vector<Card> cards(static_cast<size_t>(ranks));
  MPI_CHECK(MPI_Allgather(&mine, sizeof mine, MPI_BYTE, cards.data(), sizeof mine, MPI_BYTE, engine));
  for (int peer = 0; peer < ranks; ++peer) {
    const Card& card = cards[static_cast<size_t>(peer)];
    void* base = memory.base;
    if (peer != rank) {
      CUDA_CHECK(cudaIpcOpenMemHandle(&base, card.handle, cudaIpcMemLazyEnablePeerAccess));
      opened_.push_back(base);
    }
    addresses_.push_back(static_cast<char*>(base) + card.offset);
  }
}

PeerMemory::~PeerMemory() {
  for (void* base : opened_) cudaIpcCloseMemHandle(base);
}

P2pExchange::P2pExchange(MPI_Comm engine, Device& device, const ExchangeOptions& options,
                         std::chrono::nanoseconds deadline)
    : device_(device), stream_(static_cast<cudaStream_t>(cuda_stream(device))), fault_(sizeof(P2pFault)) {
  MPI_CHECK(MPI_Comm_rank(engine, &rank_));
  MPI_CHECK(MPI_Comm_size(engine, &ranks_));
  if (ranks_ > kMaxP2pRanks)
    throw Error(fmt::format("parallel.all_to_all p2p is for {} ranks at most, not {}: use nccl or mpi",
                            kMaxP2pRanks, ranks_));
  args_.layout = {.ranks = ranks_,
                  .max_tokens = options.max_tokens,
                  .hidden = options.hidden,
                  .k = options.num_experts_per_tok,
                  .element_bytes = static_cast<int32_t>(size_of(device.dtype())),
                  .pairs = options.copies || !one_subtree_a_rank(options.rank_of, ranks_)};
  args_.rank = rank_;
  args_.dtype = device.dtype();
  args_.deadline_ns = static_cast<uint64_t>(deadline.count());

  const char* const what = "expert exchange";
  const auto cleared = [&](size_t bytes) {
    void* const data = device.allocate(bytes, what);
    CUDA_CHECK(cudaMemsetAsync(data, 0, bytes, stream_));
    return data;
  };
  const auto to_device = [&](const void* host, size_t bytes) {
    void* const data = device.allocate(bytes, what);
    device.copy_to_device(data, host, bytes);
    return data;
  };
  window_ = static_cast<char*>(cleared(args_.layout.bytes()));
  peers_ = std::make_unique<PeerMemory>(engine, device, window_);
  const std::vector<char*>& windows = peers_->addresses();
  args_.windows = static_cast<char* const*>(to_device(windows.data(), windows.size() * sizeof(char*)));
  args_.rank_of = static_cast<const int32_t*>(to_device(options.rank_of.data(), options.rank_of.size() * 4));
  args_.epoch = static_cast<uint64_t*>(cleared(sizeof(uint64_t)));
  args_.blocks_done = static_cast<uint32_t*>(cleared(2 * sizeof(uint32_t)));
  args_.clock = static_cast<Stopwatch*>(cleared(sizeof(Stopwatch)));
  args_.fault = new (fault_.data()) P2pFault;
  if (args_.layout.pairs) every_slot_ = static_cast<int32_t*>(cleared(options.rank_of.size() * 4));
  const auto rows = static_cast<int64_t>(args_.layout.rows());
  partials_ =
      device.tensor(args_.layout.pairs ? rows * args_.layout.k : rows, options.hidden, args_.dtype, what);
  device.synchronize();
  MPI_CHECK(MPI_Barrier(engine));  // no peer may push before every window is cleared and open
}

void P2pExchange::begin_step(const std::vector<int32_t>& tokens_of_rank) {
  step_tokens_ = *std::max_element(tokens_of_rank.begin(), tokens_of_rank.end());
  if (step_tokens_ > args_.layout.max_tokens)
    throw Error(fmt::format("expert exchange: a rank brings {} tokens, windows hold {}", step_tokens_,
                            args_.layout.max_tokens));
}

Dispatched P2pExchange::dispatch(const Routed& tokens, Tensor sums) {
  (void)sums;
  own_ = tokens;
  launch_p2p_dispatch(args_,
                      {.x = tokens.x.data,
                       .ids = tokens.topk_ids.data,
                       .weights = static_cast<const float*>(tokens.topk_weights.data),
                       .rank_of_turn = tokens.slots ? tokens.slots->rank_of_turn.data : nullptr,
                       .num_tokens = static_cast<int32_t>(tokens.x.rows),
                       .step_tokens = step_tokens_},
                      stream_);
  const int64_t rows = int64_t{ranks_} * step_tokens_;
  const P2pLayout& layout = args_.layout;
  return {.tokens = {.x = {window_ + layout.tokens(), args_.dtype, rows, layout.hidden},
                     .topk_ids = {reinterpret_cast<int32_t*>(window_ + layout.ids()), rows * layout.k},
                     .topk_weights = {window_ + layout.weights(), DType::float32, rows, layout.k}},
          .partials = partials_.first(layout.pairs ? rows * layout.k : rows),
          .pairs = layout.pairs};
}

void P2pExchange::combine(Tensor sums) {
  launch_p2p_return(args_, partials_.data, step_tokens_, stream_);
  launch_p2p_sum({.exchange = &args_,
                  .own_window = window_,
                  .every_slot = every_slot_,
                  .ids = own_.topk_ids.data,
                  .out = sums.data,
                  .num_tokens = static_cast<int32_t>(own_.x.rows),
                  .step_tokens = step_tokens_},
                 stream_);
}

double P2pExchange::seconds() const {
  Stopwatch clock;
  device_.copy_to_host(&clock, args_.clock, sizeof clock);
  return static_cast<double>(clock.total) * 1e-9;
}

std::string P2pExchange::fault() const {
  const auto* const fault = reinterpret_cast<const volatile P2pFault*>(fault_.data());
  if (fault->phase == 0) return {};
  return fmt::format("expert exchange: rank {} of the engine waited {:.0f} s for rank {} in {} and gave up",
                     rank_, static_cast<double>(args_.deadline_ns) * 1e-9, int{fault->peer},
                     fault->phase == 1 ? "dispatch" : "combine");
}

}  // namespace moerun
