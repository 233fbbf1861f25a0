#pragma once
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "layout/topology.h"
#include "moerun/comm.h"
#include "moerun/job.h"

namespace moerun {

struct BackendRequest;

/// What the ranks of an engine have to exchange tokens by; the same at every rank. As it stands here nothing
/// is in the way: what is not known yet refuses nothing.
struct EngineLinks {
  bool gpus = true;         ///< device: cuda
  bool shared = false;      ///< two ranks share a GPU
  bool nccl = true;         ///< none do, or NCCL takes that at every rank (it sets the limit of ranks a GPU)
  bool one_node = true;     ///< all ranks are on one
  bool peer_access = true;  ///< each GPU can address every other's memory (or is the same one)
};

/// Why an engine cannot have an exchange, and what to do about it.
struct ExchangeRefusal {
  const char* key = nullptr;  ///< the job's key that is in the way
  std::string why;            ///< names the exchange
  std::string instead;        ///< of one that was asked for; empty: nothing is
  std::string text() const { return instead.empty() ? why : why + ": " + instead; }
};

/// How exchanges are made. A member each, so that the table below needs neither MPI nor CUDA.
struct ExchangeMakers {
  using Make = std::unique_ptr<ExpertExchange> (*)(const BackendRequest& request);
  Make p2p = nullptr, nccl = nullptr, mpi = nullptr;
};

/// An exchange as jobs name it.
struct ExchangeBackend {
  Job::Parallel::AllToAll all_to_all;
  const char* name;
  const char*
      chosen_first;  ///< why, where it is taken without being asked for and none before it was refused
  std::vector<ExchangeRefusal> (*refuses)(const ExpertMap& experts, const EngineLinks& links);
  ExchangeMakers::Make ExchangeMakers::*make;
};

/// All that there are, in the order in which `all_to_all: auto` prefers them.
std::span<const ExchangeBackend> exchange_backends();
/// Not for `automatic`.
const ExchangeBackend& exchange_backend(Job::Parallel::AllToAll all_to_all);

}  // namespace moerun
