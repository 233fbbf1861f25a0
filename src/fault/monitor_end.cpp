#include <unistd.h>

#include <fmt/format.h>

#include <algorithm>

#include "fault/launcher.h"
#include "fault/monitor.h"
#include "fault/print_line.h"

// How a job ends: who says so, and who waits for whom.

namespace moerun {

using std::chrono::milliseconds;
using std::chrono::seconds;

bool Monitor::any_open(const std::function<bool(const Peer&)>& of) const {
  for (int r = 0; r < size_; ++r) {
    if (network_.is_open(r) && of(peers_[static_cast<size_t>(r)])) return true;
  }
  return false;
}

void Monitor::wait_until_peers_close() {
  // Closing with heartbeats unread would reset the connection, and the goodbye with it.
  const auto end = Clock::now() + kFollowTimeout;
  while (Clock::now() < end && any_open([](const Peer&) { return true; })) handle_events();
}

std::string Monitor::position(int rank) {
  const Beat& beat = peer(rank).last;
  const bool own = rank == rank_;
  return fmt::format("phase {}, step {}", name_of(own ? progress_.phase() : beat.phase),
                     own ? progress_.step() : beat.step);
}

void Monitor::lost(int rank, const std::string& how) {
  if (peer(rank).lost) return;
  peer(rank).lost = true;
  if (ending_) return;
  // Having been stopped itself, this rank is the one that the others have named.
  if (Clock::now() - last_tick_ > kOwnPause) _exit(1);
  if (rank_ == 0 || (rank_ == 1 && rank == 0)) {
    end_job(fmt::format("{} {}; {}", network_.describe(rank), how, position(rank)), 1);
  }
  if (rank != 0) return;  // rank 0 sees it too
  rank0_how_ = how;
  // Rank 1 speaks, if it is there; else the others in turn, so that the first ends the job before the next.
  const bool rank1_there = network_.is_open(1) && Clock::now() - peer(1).heard <= options_.silence / 2;
  last_resort_ =
      Clock::now() + (rank1_there ? milliseconds(3000) : milliseconds(std::min(500 * (rank_ - 2), 2500)));
}

void Monitor::end_job(const std::string& line, int exit_code) {
  ending_ = true;
  if (!line.empty()) print_line(line);
  network_.send_to_all(MessageKind::end, as_body(exit_code));
  const auto sealed = start_sealing();
  wait_for_followers();
  if (sealed.valid()) sealed.wait_for(options_.seal_limit);
  if (node_gone_) end_open_mpi_launcher(launcher_);
  _exit(exit_code);
}

std::future<void> Monitor::start_sealing() {
  std::function<void()> on_fault;
  {
    const std::scoped_lock lock(mutex_);
    on_fault = on_fault_;
  }
  if (!on_fault) return {};
  std::packaged_task<void()> task(on_fault);
  std::future<void> sealed = task.get_future();
  std::thread(std::move(task)).detach();  // it may hang on what broke
  return sealed;
}

void Monitor::wait_for_followers() {
  // An exit with heartbeats unread would reset the connections, and the message that the job ends with them.
  const auto began = Clock::now(), end = began + seconds(1);
  // Those that are silent will not answer this either.
  const auto to_come = [&](const Peer& p) {
    return !p.goodbye && !p.lost && began - p.heard <= options_.silence / 2;
  };
  while (Clock::now() < end && any_open(to_come)) handle_events();
}

void Monitor::follow(int leader, int exit_code) {
  ending_ = true;
  network_.send(leader, MessageKind::goodbye);
  const auto end = Clock::now() + kFollowTimeout;
  while (Clock::now() < end && network_.is_open(leader)) handle_events();
  _exit(exit_code);
}

}  // namespace moerun
