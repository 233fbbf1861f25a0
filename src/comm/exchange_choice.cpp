#include "comm/exchange_choice.h"

#include <fmt/format.h>

#include <string_view>

#include "moerun/error.h"

namespace moerun {

using AllToAll = Job::Parallel::AllToAll;

namespace {

ExchangeChoice choose_automatically(const ExpertMap& experts, const EngineLinks& links) {
  const ExchangeBackend& mpi = exchange_backend(AllToAll::mpi);
  if (!links.gpus) return {&mpi, "the host's memory is the device's"};
  if (links.shared) return {&mpi, "ranks share a GPU: through the host's memory, for tests alone"};
  std::string why;  // those before were refused
  for (const ExchangeBackend& backend : exchange_backends()) {
    const std::vector<ExchangeRefusal> refusals = backend.refuses(experts, links);
    if (refusals.empty()) return {&backend, why.empty() ? backend.chosen_first : why};
    why += (why.empty() ? "" : "; ") + refusals.front().why;
  }
  throw BadInput(fmt::format("parallel.all_to_all: no exchange can be had: {}", why));
}

}  // namespace

ExchangeChoice choose_exchange(AllToAll asked, const ExpertMap& experts, const EngineLinks& links) {
  if (asked == AllToAll::automatic) return choose_automatically(experts, links);
  const ExchangeBackend& backend = exchange_backend(asked);
  for (const ExchangeRefusal& refusal : backend.refuses(experts, links))
    throw BadInput(fmt::format("{}: {}", refusal.key, refusal.text()));
  return {&backend, "asked for"};
}

bool nccl_takes_shared_gpus(int version, const char* enabled) {
  constexpr int kFirst = 23003;  // 2.30.3, as NCCL_VERSION_CODE counts
  return version >= kFirst && enabled && std::string_view(enabled) == "1";
}

}  // namespace moerun
