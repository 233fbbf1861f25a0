#include "comm/mpi_exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <tuple>

#include "comm/mpi_env.h"
#include "moerun/error.h"
#include "moerun/expert_turn.h"
#include "moerun/half.h"

namespace moerun {

namespace {

constexpr int kTokens = 1, kPartials = 2;  // message tags

/// How many partial sums one token can have at each rank: no more than its experts, and no more than the
/// largest subtrees that hold experts of that rank alone. Copies may stand anywhere in the tree, and leave
/// holes at home.
std::vector<int32_t> max_partials_of_rank(const ExpertMap& map, int32_t k) {
  if (map.num_redundant() > 0) return std::vector<int32_t>(static_cast<size_t>(map.ep_size()), k);
  std::vector<int32_t> all(static_cast<size_t>(map.num_experts()));
  std::iota(all.begin(), all.end(), 0);
  std::vector<ExpertSpan> spans;
  cut_into_spans(all, map.ranks(), spans);
  std::vector<int32_t> count(static_cast<size_t>(map.ep_size()), 0);
  for (const ExpertSpan& span : spans) ++count[static_cast<size_t>(map.rank_of(span.first))];
  for (int32_t& c : count) c = std::min(c, k);
  return count;
}

/// left += right, rounded to dtype.
void add_row(void* left, const void* right, DType dtype, int64_t n) {
  if (dtype == DType::float32) {
    auto* a = static_cast<float*>(left);
    const auto* b = static_cast<const float*>(right);
    for (int64_t i = 0; i < n; ++i) a[i] += b[i];
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    store_float(left, dtype, i, load_float(left, dtype, i) + load_float(right, dtype, i));
  }
}

}  // namespace

MpiExchange::MpiExchange(MPI_Comm ep, const ExpertMap& map, Device& device, const Options& options)
    : ep_(ep),
      map_(map),
      device_(device),
      options_(options),
      k_(static_cast<size_t>(options.num_experts_per_tok)),
      row_bytes_(static_cast<size_t>(options.hidden) * size_of(device.dtype())),
      max_partials_(max_partials_of_rank(map, options.num_experts_per_tok)),
      x_in_(device, static_cast<size_t>(options.max_tokens) * row_bytes_),
      ids_in_(device, static_cast<size_t>(options.max_tokens) * k_ * 4),
      weights_in_(device, static_cast<size_t>(options.max_tokens) * k_ * 4),
      x_out_(device, rows_here() * row_bytes_),
      ids_out_(device, rows_here() * k_ * 4),
      weights_out_(device, rows_here() * k_ * 4),
      offsets_out_(device, (rows_here() + 1) * 4),
      partials_out_(device, partials_here() * row_bytes_),
      result_(device, static_cast<size_t>(options.max_tokens) * row_bytes_),
      sorted_(k_),
      sorted_id_(k_),
      sorted_rank_(k_),
      ids_(k_) {
  MPI_CHECK(MPI_Comm_rank(ep_, &rank_));
  MPI_CHECK(MPI_Comm_size(ep_, &ranks_));
  const auto ranks = static_cast<size_t>(ranks_);
  const auto max_tokens = static_cast<size_t>(options_.max_tokens);
  if (map.ep_size() != ranks_)
    throw Error(fmt::format("expert map of {} ranks for {}", map.ep_size(), ranks_));

  to_.resize(ranks);
  expected_.resize(ranks);
  outbox_.resize(ranks);
  inbox_.resize(ranks);
  returned_.resize(ranks);
  next_.resize(ranks);
  arrived_begin_.resize(ranks + 1);
  partials_begin_.resize(ranks + 1);
  for (size_t r = 0; r < ranks; ++r) {
    to_[r].reserve(max_tokens);
    returned_[r].resize(max_tokens * static_cast<size_t>(max_partials_[r]) * row_bytes_);
    if (static_cast<int>(r) == rank_) continue;
    outbox_[r].resize(message_bytes(max_tokens));
    inbox_[r].resize(message_bytes(max_tokens));
  }
  spans_.reserve(max_tokens * k_);
  span_begin_.reserve(max_tokens + 1);
  requests_.reserve(2 * ranks);

  const auto rows = static_cast<int64_t>(rows_here());
  arrived_ = {
      .x = device.tensor(rows, options.hidden, device.dtype(), "expert exchange"),
      .topk_ids = device.ints(rows * options.num_experts_per_tok, "expert exchange"),
      .topk_weights = device.tensor(rows, options.num_experts_per_tok, DType::float32, "expert exchange")};
  partials_ = device.tensor(static_cast<int64_t>(partials_here()), options.hidden, device.dtype(),
                            "expert partial sums");
  offsets_ = device.ints(rows + 1, "expert exchange");
}

size_t MpiExchange::rows_here() const {
  return static_cast<size_t>(map_.ep_size()) * static_cast<size_t>(options_.max_tokens);
}

size_t MpiExchange::partials_here() const {
  return rows_here() * static_cast<size_t>(*std::max_element(max_partials_.begin(), max_partials_.end()));
}

void MpiExchange::begin_step(const std::vector<int32_t>& tokens_of_rank) {
  for (size_t r = 0; r < tokens_of_rank.size(); ++r) {
    if (tokens_of_rank[r] > options_.max_tokens) {
      throw Error(fmt::format("expert exchange: rank {} brings {} tokens, and there is room for {}", r,
                              tokens_of_rank[r], options_.max_tokens));
    }
  }
  tokens_of_rank_ = tokens_of_rank;
}

void MpiExchange::cut_token() {
  std::sort(sorted_.begin(), sorted_.end());
  for (size_t i = 0; i < k_; ++i) std::tie(sorted_id_[i], sorted_rank_[i]) = sorted_[i];
  cut_.clear();
  cut_into_spans(sorted_id_, sorted_rank_, cut_);
}

int32_t MpiExchange::count_partials(const int32_t* ids) {
  for (size_t i = 0; i < k_; ++i) sorted_[i] = {tree_position(ids[i]), ids[i] >= 0};
  cut_token();
  return static_cast<int32_t>(std::count_if(cut_.begin(), cut_.end(), [&](const ExpertSpan& span) {
    return sorted_rank_[static_cast<size_t>(span.first)] != 0;
  }));
}

void MpiExchange::choose_ranks(const Routed& tokens, const int32_t* ids) {
  own_ranks_.resize(static_cast<size_t>(tokens.x.rows) * k_);
  const bool copies = tokens.slots && !tokens.slots->host_rank_of_turn.empty();
  for (size_t pair = 0; pair < own_ranks_.size(); ++pair) {
    if (!copies) {
      own_ranks_[pair] = map_.rank_of(ids[pair]);
      continue;
    }
    const auto turn = static_cast<size_t>(turn_of(rank_, static_cast<int32_t>(pair / k_)));
    own_ranks_[pair] = tokens.slots->host_rank_of_turn[static_cast<size_t>(ids[pair]) * kExpertTurns + turn];
  }
}

void MpiExchange::plan_own_tokens(const int32_t* ids, int64_t n) {
  spans_.clear();
  span_begin_.assign(1, 0);
  for (auto& list : to_) list.clear();
  std::fill(expected_.begin(), expected_.end(), 0);
  for (int64_t t = 0; t < n; ++t) {
    const auto first = static_cast<size_t>(t) * k_;
    for (size_t i = 0; i < k_; ++i) sorted_[i] = {ids[first + i], own_ranks_[first + i]};
    cut_token();
    for (const ExpertSpan& span : cut_) {
      const auto rank = static_cast<size_t>(sorted_rank_[static_cast<size_t>(span.first)]);
      spans_.push_back({.first_id = sorted_id_[static_cast<size_t>(span.first)],
                        .last_id = sorted_id_[static_cast<size_t>(span.last) - 1],
                        .rank = static_cast<int32_t>(rank)});
      ++expected_[rank];
      if (to_[rank].empty() || to_[rank].back() != t) to_[rank].push_back(static_cast<int32_t>(t));
    }
    span_begin_.push_back(spans_.size());
  }
}

Dispatched MpiExchange::dispatch(const Routed& tokens, Tensor sums) {
  (void)sums;
  const int64_t n = tokens.x.rows;
  if (n != tokens_of_rank_.at(static_cast<size_t>(rank_))) {
    throw Error(fmt::format("expert exchange: {} tokens, and begin_step said {}", n,
                            tokens_of_rank_[static_cast<size_t>(rank_)]));
  }
  const HostTokens own{
      static_cast<const char*>(x_in_.read(tokens.x.data, tokens.x.bytes())),
      static_cast<const int32_t*>(ids_in_.read(tokens.topk_ids.data, static_cast<size_t>(n) * k_ * 4)),
      static_cast<const float*>(weights_in_.read(tokens.topk_weights.data, static_cast<size_t>(n) * k_ * 4))};
  choose_ranks(tokens, own.ids);
  plan_own_tokens(own.ids, n);

  requests_.clear();
  std::vector<int>& sources = sources_;
  sources.clear();
  for (int r = 0; r < ranks_; ++r) {
    const auto at = static_cast<size_t>(r);
    if (r == rank_ || tokens_of_rank_[at] == 0) continue;
    const size_t bytes = message_bytes(static_cast<size_t>(tokens_of_rank_[at]));
    MPI_CHECK(MPI_Irecv(inbox_[at].data(), byte_count(bytes), MPI_BYTE, r, kTokens, ep_, new_request()));
    sources.push_back(r);
  }
  if (n > 0) {
    for (int i = 1; i < ranks_; ++i) {
      const int r = (rank_ + i) % ranks_;  // each rank begins with another one
      const auto at = static_cast<size_t>(r);
      char* const message = outbox_[at].data();
      char* const ids = message + to_[at].size() * row_bytes_;
      pack(own, r, message, ids, ids + to_[at].size() * k_ * 4);
      MPI_CHECK(MPI_Isend(message, byte_count(message_bytes(to_[at].size())), MPI_BYTE, r, kTokens, ep_,
                          new_request()));
    }
  }
  wait_all();

  std::vector<size_t> count(static_cast<size_t>(ranks_), 0);
  count[static_cast<size_t>(rank_)] = to_[static_cast<size_t>(rank_)].size();
  for (size_t i = 0; i < sources.size(); ++i) {
    int bytes = 0;
    MPI_CHECK(MPI_Get_count(&statuses_[i], MPI_BYTE, &bytes));
    count[static_cast<size_t>(sources[i])] = static_cast<size_t>(bytes) / message_bytes(1);
  }
  return arrange(own, count);
}

void MpiExchange::pack(const HostTokens& own, int rank, char* x, char* ids, char* weights) {
  for (const int32_t t : to_[static_cast<size_t>(rank)]) {
    const auto token = static_cast<size_t>(t), first = token * k_;
    for (size_t i = 0; i < k_; ++i)
      ids_[i] = own_ranks_[first + i] == rank ? own.ids[first + i] : elsewhere(own.ids[first + i]);
    std::memcpy(std::exchange(x, x + row_bytes_), own.x + token * row_bytes_, row_bytes_);
    std::memcpy(std::exchange(ids, ids + k_ * 4), ids_.data(), k_ * 4);
    std::memcpy(std::exchange(weights, weights + k_ * 4), own.weights + first, k_ * 4);
  }
}

Dispatched MpiExchange::arrange(const HostTokens& own, const std::vector<size_t>& count) {
  auto* const x = static_cast<char*>(x_out_.write(arrived_.x.data));
  auto* const ids = static_cast<int32_t*>(ids_out_.write(arrived_.topk_ids.data));
  auto* const weights = static_cast<float*>(weights_out_.write(arrived_.topk_weights.data));
  auto* const offsets = static_cast<int32_t*>(offsets_out_.write(offsets_.data));
  size_t row = 0;
  int32_t partial = 0;
  for (size_t r = 0; r < count.size(); ++r) {
    arrived_begin_[r] = row;
    partials_begin_[r] = static_cast<size_t>(partial);
    if (static_cast<int>(r) == rank_) {
      pack(own, rank_, x + row * row_bytes_, reinterpret_cast<char*>(ids + row * k_),
           reinterpret_cast<char*>(weights + row * k_));
    } else if (count[r] > 0) {
      const char* const message = inbox_[r].data();
      std::memcpy(x + row * row_bytes_, message, count[r] * row_bytes_);
      std::memcpy(ids + row * k_, message + count[r] * row_bytes_, count[r] * k_ * 4);
      std::memcpy(weights + row * k_, message + count[r] * (row_bytes_ + k_ * 4), count[r] * k_ * 4);
    }
    for (const size_t end = row + count[r]; row < end; ++row) {
      offsets[row] = partial;
      partial += count_partials(ids + row * k_);
    }
  }
  offsets[row] = partial;
  arrived_begin_.back() = row;
  partials_begin_.back() = static_cast<size_t>(partial);

  x_out_.deliver(arrived_.x.data, row * row_bytes_);
  ids_out_.deliver(arrived_.topk_ids.data, row * k_ * 4);
  weights_out_.deliver(arrived_.topk_weights.data, row * k_ * 4);
  offsets_out_.deliver(offsets_.data, (row + 1) * 4);
  const auto rows = static_cast<int64_t>(row);
  return {.tokens = {.x = arrived_.x.first(rows),
                     .topk_ids = {arrived_.topk_ids.data, rows * static_cast<int64_t>(k_)},
                     .topk_weights = arrived_.topk_weights.first(rows)},
          .partials = partials_.first(partial),
          // One subtree a rank: every token that arrives has exactly one partial sum.
          .partial_offsets =
              max_partials_[static_cast<size_t>(rank_)] <= 1 ? Ints{} : Ints{offsets_.data, rows + 1}};
}

void MpiExchange::combine(Tensor sums) {
  const auto* const partials =
      static_cast<const char*>(partials_out_.read(partials_.data, partials_begin_.back() * row_bytes_));
  requests_.clear();
  for (int r = 0; r < ranks_; ++r) {
    const auto at = static_cast<size_t>(r);
    next_[at] = returned_[at].data();
    if (r == rank_ || expected_[at] == 0) continue;
    MPI_CHECK(MPI_Irecv(returned_[at].data(), byte_count(expected_[at] * row_bytes_), MPI_BYTE, r, kPartials,
                        ep_, new_request()));
  }
  for (int i = 1; i < ranks_; ++i) {
    const int r = (rank_ + i) % ranks_;
    const size_t begin = partials_begin_[static_cast<size_t>(r)];
    const size_t rows = partials_begin_[static_cast<size_t>(r) + 1] - begin;
    if (rows == 0) continue;
    MPI_CHECK(MPI_Isend(partials + begin * row_bytes_, byte_count(rows * row_bytes_), MPI_BYTE, r, kPartials,
                        ep_, new_request()));
  }
  const auto self = static_cast<size_t>(rank_);
  std::memcpy(returned_[self].data(), partials + partials_begin_[self] * row_bytes_,
              expected_[self] * row_bytes_);
  wait_all();

  auto* const result = static_cast<char*>(result_.write(sums.data));
  for (size_t token = 0; token + 1 < span_begin_.size(); ++token)
    add_spans(token, result + token * row_bytes_);
  result_.deliver(sums.data, sums.bytes());
}

void MpiExchange::add_spans(size_t token, void* out) {
  // The sums wait in a stack, each with the height at which it meets the one below; what meets lower is added
  // first.
  auto add_top = [this] {
    char* const right = stack_.back().row;
    stack_.pop_back();
    add_row(stack_.back().row, right, device_.dtype(), options_.hidden);
  };
  stack_.clear();
  int32_t previous_id = 0;
  for (size_t i = span_begin_[token]; i < span_begin_[token + 1]; ++i) {
    const OwnSpan& span = spans_[i];
    char*& next = next_[static_cast<size_t>(span.rank)];
    const int32_t level = stack_.empty() ? 0 : meeting_level(previous_id, span.first_id);
    while (stack_.size() > 1 && stack_.back().level < level) add_top();
    stack_.push_back({.row = next, .level = level});
    next += row_bytes_;
    previous_id = span.last_id;
  }
  while (stack_.size() > 1) add_top();
  std::memcpy(out, stack_.front().row, row_bytes_);
}

MPI_Request* MpiExchange::new_request() { return &requests_.emplace_back(MPI_REQUEST_NULL); }

void MpiExchange::wait_all() {
  statuses_.resize(requests_.size());
  const Waiting waiting(options_.progress);
  MPI_CHECK(MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), statuses_.data()));
}

}  // namespace moerun
