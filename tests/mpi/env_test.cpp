#include <algorithm>
#include <numeric>

#include "comm/agreement.h"
#include "tests/mpi/harness.h"

namespace moerun::mpi_test {

namespace {

/// World ranks of a communicator's members, in its order.
std::vector<int> members(const MpiEnv& env, const Communicator& comm) {
  const int mine = env.rank();
  std::vector<int> ranks(static_cast<size_t>(comm.size()));
  MPI_CHECK(MPI_Allgather(&mine, 1, MPI_INT, ranks.data(), 1, MPI_INT, comm));
  return ranks;
}

std::string check_communicators(const MpiEnv& env, const Layout& layout) {
  const Communicators comms(env, layout);
  const Coordinates me = coordinates_of(layout, env.rank());
  if (comms.control.size() != env.size() || comms.control.rank() != env.rank())
    return "control is not the world";
  std::vector<int> engine, group;
  for (int rank = 0; rank < env.size(); ++rank) {
    const Coordinates at = coordinates_of(layout, rank);
    if (at.replica == me.replica) engine.push_back(rank);
    if (at.replica == me.replica && at.data == me.data) group.push_back(rank);
  }
  if (members(env, comms.ep) != engine) return "ep has other members";
  if (members(env, comms.tp) != group) return "tp has other members";
  if (comms.ep.rank() != ep_rank_of(layout, env.rank())) return "ep rank";
  if (comms.tp.rank() != me.tensor) return "tp rank";

  StepAgreement agreement(comms.ep);
  for (int step = 0; step < 3; ++step) {
    const auto bids = agreement.agree({.num_tokens = 10 * env.rank() + step, .flags = env.rank() % 2});
    for (size_t r = 0; r < bids.size(); ++r) {
      if (bids[r].num_tokens != 10 * engine[r] + step || bids[r].flags != engine[r] % 2) return "agreement";
    }
  }
  return "";
}

}  // namespace

void test_env(const MpiEnv& env, Suite& suite) {
  suite.run("hosts, local ranks, texts", [&]() -> std::string {
    if (static_cast<int>(env.hosts().size()) != env.size()) return "hosts";
    const auto& hosts = env.hosts();
    const auto mine = hosts.begin() + env.rank();
    if (env.local_rank() != std::count(hosts.begin(), mine, env.host())) return "local rank";
    if (env.local_size() != std::count(hosts.begin(), hosts.end(), env.host())) return "local size";
    const auto texts = env.all_gather(std::string(static_cast<size_t>(env.rank() * 3), 'x'));
    for (size_t r = 0; r < texts.size(); ++r) {
      if (texts[r].size() != 3 * r) return "all_gather of texts";
    }
    // Longer than what MPI sends before the receiver asks.
    const auto text_of = [](int rank) {
      return std::string(static_cast<size_t>(rank) * 100'000, static_cast<char>('a' + rank % 26));
    };
    const auto gathered = env.gather(text_of(env.rank()));
    if (gathered.size() != (env.rank() == 0 ? static_cast<size_t>(env.size()) : 0)) return "gather's texts";
    for (size_t r = 0; r < gathered.size(); ++r) {
      if (gathered[r] != text_of(static_cast<int>(r))) return "gather of texts";
    }
    return env.broadcast(env.rank() == 0 ? "from rank 0" : "") == "from rank 0" ? "" : "broadcast";
  });
  for (int tensor = 1; tensor <= env.size(); ++tensor) {
    for (int replicas = 1; replicas <= env.size(); ++replicas) {
      if (env.size() % (tensor * replicas) != 0) continue;
      suite.run(fmt::format("communicators, tensor {} × replicas {}", tensor, replicas),
                [&] { return check_communicators(env, make_layout(env.size(), tensor, 0, replicas)); });
    }
  }
  suite.run("an MPI error is thrown with file and line", [&]() -> std::string {
    try {
      MPI_CHECK(MPI_Send(nullptr, 0, MPI_BYTE, env.size() + 5, 0, env.world()));
    } catch (const Error& error) {
      return std::string(error.what()).find("env_test.cpp:") != std::string::npos ? "" : error.what();
    }
    return "no error";
  });
}

}  // namespace moerun::mpi_test
