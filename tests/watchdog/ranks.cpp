// A job of ranks that step together and do nothing else, for the watchdog's tests.
// Usage: ranks DIR [throw RANK | hang RANK | refuse 1 | silence MS | limit MS | finish STEPS | late RANK |
//                    stuck 1 | slow MS] ...
// Each rank writes its pid to DIR/pid.RANK once it runs; rank 0 writes DIR/sealed when the watchdog asks it
// to seal. A late rank calls the others' watchdogs when there is a file DIR/go; rank 0 says in DIR/ports
// where it is called.
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "comm/agreement.h"
#include "comm/mpi_env.h"
#include "fault/signals.h"
#include "fault/watchdog.h"
#include "moerun/error.h"

namespace {

using namespace moerun;

void write_file(const std::string& path, const std::string& text) {
  std::ofstream(path + ".tmp") << text;
  if (std::rename((path + ".tmp").c_str(), path.c_str()) != 0) throw Error("cannot write " + path);
}

int run(const std::string& directory, std::map<std::string, int> script, int rank, StopSignals& signals,
        MPI_Comm ep, Watchdog& watchdog) {
  const auto is = [&](const char* what) { return script.count(what) > 0 && script[what] == rank; };
  if (script.count("refuse") > 0) throw BadInput("jobs/x.yaml:3: unknown key");
  if (script.count("stuck") > 0) {  // as a broadcast that never comes
    const Waiting waiting(&watchdog.progress());
    write_file(fmt::format("{}/pid.{}", directory, rank), std::to_string(getpid()));
    while (true) ::poll(nullptr, 0, 1000);
  }
  if (script.count("slow") > 0) {  // rank 0 reads its input, and the others wait for what it says
    if (rank == 0) ::poll(nullptr, 0, script["slow"]);
    const Waiting waiting(&watchdog.progress());
    MPI_CHECK(MPI_Barrier(ep));
  }
  StepAgreement agreement(ep, &watchdog.progress());
  watchdog.set_phase(Phase::run);
  for (int64_t step = 0;; ++step) {
    watchdog.begin_step(step);
    if (step == 60) {
      write_file(fmt::format("{}/pid.{}", directory, rank), std::to_string(getpid()));
      if (is("throw")) throw Error("the weights are made of cheese");
      while (is("hang")) ::poll(nullptr, 0, 1000);
    }
    const bool finished = script.count("finish") > 0 && step >= script["finish"];
    const Stop stop = rank == 0 ? signals.poll().kind : Stop::none;
    const auto bids = agreement.agree({.num_tokens = 0, .flags = finished ? 9 : static_cast<int>(stop)});
    if (bids[0].flags == 9) return 0;
    if (bids[0].flags != 0) {
      if (rank == 0) fmt::print("stopped by {}\n", signals.poll().why);
      return 75;
    }
    ::poll(nullptr, 0, 5);
  }
}

/// What the watchdog is told with, which keeps a late rank waiting once it has been told where to call.
std::function<std::vector<std::string>(const std::string&)> gather_for(const MpiEnv& env,
                                                                       const std::string& directory,
                                                                       int late) {
  return [&env, directory, late, times = 0](const std::string& mine) mutable {
    const std::vector<std::string> all = env.all_gather(mine);
    if (++times == 2 && late > 0) {
      if (env.rank() == 0) write_file(directory + "/ports", fmt::format("{}\n{}\n", getpid(), all[0]));
      while (env.rank() == late && access((directory + "/go").c_str(), F_OK) != 0) ::poll(nullptr, 0, 10);
    }
    return all;
  };
}

}  // namespace

int main(int argc, char** argv) {
  std::map<std::string, int> script;
  for (int i = 2; i + 1 < argc; i += 2) script[argv[i]] = std::atoi(argv[i + 1]);
  StopSignals signals;
  std::optional<Watchdog> watchdog;
  int exit_code = 0;
  try {
    MpiEnv env(&argc, &argv);
    Watchdog::Options options{.signals = &signals};
    if (script.count("silence") > 0) options.silence = std::chrono::milliseconds(script["silence"]);
    if (script.count("limit") > 0) options.step_limit = std::chrono::milliseconds(script["limit"]);
    watchdog.emplace(Watchdog::World{.rank = env.rank(),
                                     .size = env.size(),
                                     .hosts = env.hosts(),
                                     .all_gather = gather_for(env, argv[1],
                                                              script.count("late") > 0 ? script["late"] : 0)},
                     options);
    if (env.rank() == 0) {
      watchdog->set_on_fault([sealed = std::string(argv[1]) + "/sealed"] { write_file(sealed, "sealed\n"); });
    }
    try {
      exit_code = run(argv[1], script, env.rank(), signals, env.world(), *watchdog);
      watchdog->set_on_fault(nullptr);
      watchdog->set_phase(Phase::end);
    } catch (const Error& error) {
      watchdog->fail(error.what(), static_cast<int>(error.code()));
    }
  } catch (const std::exception& error) {
    fmt::print(stderr, "moerun: {}\n", error.what());
    return 1;
  }
  watchdog->close();  // MPI_Finalize was watched as well
  return exit_code;
}
