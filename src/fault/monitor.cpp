#include "fault/monitor.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <tuple>

#include "fault/launcher.h"
#include "fault/print_line.h"
#include "moerun/error.h"

namespace moerun {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds kTick{100};
constexpr milliseconds kErrorDelay{150};  // a dead peer makes others throw; its closed connection names it

}  // namespace

// --- start and end ----------------------------------------------------------------------------------------

Monitor::Monitor(const Watchdog::World& world, const Watchdog::Options& options, Progress& progress)
    : rank_(world.rank),
      size_(world.size),
      options_(options),
      progress_(progress),
      network_(world),
      peers_(static_cast<size_t>(world.size)),
      launcher_(find_launcher(world.size)) {
  const auto now = Clock::now();
  last_tick_ = last_beat_ = last_progress_ = now;
  for (Peer& p : peers_) p.heard = now;

  // The hubs answer calls on their threads, so that no rank waits for another's turn.
  for (int hub = 0; hub < std::min(rank_, 2); ++hub) network_.call_hub(hub);
  thread_ = std::thread([this] { watch(); });
  try {
    network_.wait_for_callers();
  } catch (const Error&) {
    stop();
    throw;
  }
}

Monitor::~Monitor() { stop(); }

void Monitor::stop() {
  {
    const std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  network_.wake();
  if (thread_.joinable()) thread_.join();
}

// --- from other threads -----------------------------------------------------------------------------------

void Monitor::set_on_fault(std::function<void()> on_fault) {
  const std::scoped_lock lock(mutex_);
  on_fault_ = std::move(on_fault);
}

void Monitor::fail(const std::string& message, int exit_code) {
  std::unique_lock lock(mutex_);
  if (closed_) {  // the others are safely past their ends
    print_line(message);
    _exit(exit_code);
  }
  if (!failure_) failure_ = {rank_, message, exit_code, Clock::now() + kErrorDelay};
  network_.wake();
  // The thread ends the process.
  while (true) changed_.wait(lock);
}

void Monitor::close() {
  std::unique_lock lock(mutex_);
  closing_ = true;
  network_.wake();
  changed_.wait(lock, [this] { return closed_; });
}

// --- the thread -------------------------------------------------------------------------------------------

void Monitor::watch() {
  while (!done_) {
    handle_events();
    const auto now = Clock::now();
    if (now - last_tick_ >= kTick) tick(now);
    {
      const std::scoped_lock lock(mutex_);
      if (stop_) return;
    }
    check_farewell();
  }
  network_.close();
}

void Monitor::handle_events() {
  for (const PeerNetwork::Event& event : network_.wait_for_events(kTick)) {
    if (event.message) {
      try {
        handle(event.rank, *event.message);
      } catch (const Error& error) {
        lost(event.rank, std::string("is out of order: it sent ") + error.what());
      }
    } else if (!peer(event.rank).goodbye) {
      lost(event.rank, "died: its connection closed");
    }
  }
}

void Monitor::handle(int rank, const Message& message) {
  Peer& p = peer(rank);
  p.heard = Clock::now();
  switch (message.kind) {
    case MessageKind::beat:
      copy_body(message, &p.last, sizeof p.last);
      if (p.last.phase < Phase::start || p.last.phase > Phase::end)
        throw Error("a phase that does not exist");
      break;
    case MessageKind::stop:
      if (options_.signals && !message.body.empty()) {
        options_.signals->request(static_cast<Stop>(message.body[0] - '0'),
                                  fmt::format("{} at rank {}", message.body.substr(1), rank));
      }
      break;
    case MessageKind::failure:
      if (!reported_ && message.body.size() > sizeof(int)) {
        int exit_code = 1;
        std::memcpy(&exit_code, message.body.data(), sizeof exit_code);
        reported_ = {rank, message.body.substr(sizeof exit_code), exit_code, Clock::now() + kErrorDelay};
      }
      break;
    case MessageKind::end: {
      if (ending_) break;
      int exit_code = 1;
      copy_body(message, &exit_code, sizeof exit_code);
      follow(rank, exit_code);
    }
    case MessageKind::goodbye:
      p.goodbye = true;
      break;
    case MessageKind::challenge:
    case MessageKind::hello:
    case MessageKind::welcome:
      break;
  }
}

void Monitor::tick(Clock::time_point now) {
  if (now - last_tick_ > kOwnPause) {
    for (Peer& p : peers_) p.heard = now;
    last_progress_ = now;
  }
  last_tick_ = now;
  const Beat mine = measure(now);
  if (now - last_beat_ >= options_.beat || mine.phase != told_phase_) {
    last_beat_ = now;
    told_phase_ = mine.phase;
    network_.send_to_all(MessageKind::beat, as_body(mine));
  }
  network_.flush();
  check_silence(now);
  if (rank_ == 0) check_hangs(mine);
  check_launcher();
  check_failure(now);
  check_last_resort(now);
  relay_stop();
}

Monitor::Beat Monitor::measure(Clock::time_point now) {
  Beat beat{.phase = progress_.phase(), .waiting = progress_.waiting(), .step = progress_.step()};
  const auto pause = std::chrono::duration_cast<milliseconds>(now - last_progress_);
  if (beat.phase != last_phase_) longest_pause_ = milliseconds(0);
  last_phase_ = beat.phase;
  if (const uint64_t beats = progress_.beats(); beats != last_beats_) {
    longest_pause_ = std::max(longest_pause_, pause);
    last_beats_ = beats;
    last_progress_ = now;
  } else {
    beat.pause_ms = pause.count();
  }
  switch (beat.phase) {
    case Phase::load:
    case Phase::warm_up:
      beat.limit_ms = options_.load_limit.count();
      break;
    case Phase::run:
    case Phase::drain:
      beat.limit_ms = std::max(options_.step_limit, 20 * longest_pause_).count();
      break;
    case Phase::start:  // rank 0 works through the whole input while the others wait
    case Phase::merge:  // and through the whole output
    case Phase::end:
      break;
  }
  return beat;
}

void Monitor::check_silence(Clock::time_point now) {
  for (int r = 0; r < size_; ++r) {
    Peer& p = peer(r);
    if (!network_.is_open(r) || p.goodbye || p.lost || now - p.heard <= options_.silence) continue;
    // What else of that machine is about to be missed as well.
    int others = 0;
    for (int o = 0; o < size_; ++o) {
      const bool same_host = network_.host(o) == network_.host(r);
      if (o != r && same_host && network_.is_open(o) && now - peer(o).heard > options_.silence / 2) ++others;
    }
    // A rank of this host is stopped; one of another may be there no more, nor its host.
    node_gone_ = node_gone_ || network_.host(r) != network_.host(rank_);
    lost(r, fmt::format("has been silent for {:.0f} s{}: stopped, or its node or network is gone",
                        std::chrono::duration<double>(now - p.heard).count(),
                        others > 0 ? fmt::format(" (and {} more of that host)", others) : ""));
  }
}

void Monitor::check_hangs(const Beat& mine) {
  peer(0).last = mine;
  check_start();
  const auto hangs = [](const Peer& p) { return p.last.limit_ms > 0 && p.last.pause_ms > p.last.limit_ms; };
  if (std::none_of(peers_.begin(), peers_.end(), hangs)) return;
  // Those that wait for the one that hangs pause as long as it does: it is the one furthest behind.
  const auto behind = [](const Peer& a, const Peer& b) {
    return std::tuple(a.last.phase, a.last.step, a.last.waiting) <
           std::tuple(b.last.phase, b.last.step, b.last.waiting);
  };
  const auto rank = static_cast<int>(std::min_element(peers_.begin(), peers_.end(), behind) - peers_.begin());
  int64_t pause_ms = 0;
  for (const Peer& p : peers_) pause_ms = std::max(pause_ms, p.last.pause_ms);
  end_job(fmt::format("{} hangs: no progress for {} s; {}", network_.describe(rank), pause_ms / 1000,
                      position(rank)),
          1);
}

void Monitor::check_start() {
  // In the start one rank may work for as long as it likes while all others wait for it. All of them wait for
  // something else: MPI.
  const auto is_stuck = [this](const Peer& p) {
    return p.last.phase == Phase::start && p.last.waiting && p.last.pause_ms > options_.step_limit.count();
  };
  if (!std::all_of(peers_.begin(), peers_.end(), is_stuck)) return;
  end_job(fmt::format("every rank waits in MPI for the others: no progress for {} s; {}",
                      options_.step_limit.count() / 1000, position(0)),
          1);
}

void Monitor::check_launcher() {
  if (launcher_ == 0 || getppid() == launcher_ || said_goodbye_) return;
  const std::scoped_lock lock(mutex_);
  if (!failure_)
    failure_ = {rank_, fmt::format("its launcher (process {}) is gone", launcher_), 1, Clock::now()};
  launcher_ = 0;
}

void Monitor::check_failure(Clock::time_point now) {
  if (!reported_) {
    const std::scoped_lock lock(mutex_);
    if (!failure_) return;
    reported_ = failure_;
    if (rank_ != 0) {
      if (!peer(0).lost) {
        network_.send(0, MessageKind::failure, as_body(failure_->exit_code) + failure_->message);
      }
      reported_->due = now + kFollowTimeout;  // by then rank 0 has ended the job
    }
  }
  if (now < reported_->due) return;
  // Faults have a place; refusals and stops (exit codes 2, 75) are the job's.
  const std::string where =
      reported_->exit_code == 1
          ? fmt::format("{}, {}: ", network_.describe(reported_->rank), position(reported_->rank))
          : "";
  end_job(where + reported_->message, reported_->exit_code);
}

void Monitor::check_last_resort(Clock::time_point now) {
  if (!last_resort_ || now < *last_resort_) return;
  // A launcher that ends the job has heard of it from a rank that spoke.
  const bool told = options_.signals && options_.signals->poll().kind == Stop::now;
  end_job(told ? "" : fmt::format("{} {}; {}", network_.describe(0), rank0_how_, position(0)), 1);
}

void Monitor::relay_stop() {
  if (rank_ == 0 || !options_.signals || !network_.is_open(0)) return;
  const StopRequest request = options_.signals->poll();
  if (request.kind <= relayed_) return;
  relayed_ = request.kind;
  network_.send(0, MessageKind::stop,
                fmt::format("{}{}", static_cast<char>('0' + static_cast<int>(request.kind)), request.why));
}

void Monitor::check_farewell() {
  {
    const std::scoped_lock lock(mutex_);
    if (!closing_ || failure_) return;
  }
  if (!said_goodbye_ && rank_ != 0) {
    network_.send_to_all(MessageKind::goodbye);
    said_goodbye_ = true;
  }
  if (rank_ == 0) {
    for (int r = 1; r < size_; ++r) {
      if (!peer(r).goodbye) return;
    }
    for (int r = 1; r < size_; ++r) network_.send(r, MessageKind::goodbye);
    wait_until_peers_close();
  } else if (!peer(0).goodbye) {
    return;
  }
  done_ = true;
  const std::scoped_lock lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

}  // namespace moerun
