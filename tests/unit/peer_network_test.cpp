#include "fault/peer_network.h"

#include <arpa/inet.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <atomic>
#include <barrier>
#include <filesystem>
#include <memory>
#include <thread>

#include "moerun/error.h"
#include "tests/catch.h"

using namespace moerun;
using namespace std::chrono_literals;

namespace {

/// Ranks of one job as threads of this process. Hubs answer from the start; `network(r)` calls when told to.
class Ranks {
 public:
  explicit Ranks(int size)
      : size_(size), texts_(static_cast<size_t>(size)), barrier_(size), networks_(static_cast<size_t>(size)) {
    std::vector<std::thread> threads;
    for (int r = 0; r < size; ++r)
      threads.emplace_back([this, r] {
        Watchdog::World world{
            .rank = r, .size = size_, .hosts = std::vector<std::string>(texts_.size(), "here")};
        world.all_gather = [this, r](const std::string& mine) { return gather(r, mine); };
        networks_[static_cast<size_t>(r)] = std::make_unique<PeerNetwork>(world);
      });
    for (std::thread& thread : threads) thread.join();
    for (int hub = 0; hub < 2; ++hub)
      pumps_.emplace_back([this, hub] {
        while (!done_) heard_[static_cast<size_t>(hub)] += network(hub).wait_for_events(20ms).size();
      });
  }
  ~Ranks() {
    done_ = true;
    for (std::thread& pump : pumps_) pump.join();
  }
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  PeerNetwork& network(int rank) { return *networks_[static_cast<size_t>(rank)]; }
  /// Where rank 0 listens, as it told the others.
  PeerAddress place() const {
    const size_t space = told_.find(' ');
    return {told_.substr(0, space), static_cast<uint16_t>(std::stoi(told_.substr(space)))};
  }
  const std::string& told() const { return told_; }
  Secret secret() const { return secret_; }

  /// Everybody else calls; throws when rank 0 does not answer.
  void meet() {
    network(2).call_hub(0);
    network(1).call_hub(0);
    network(2).call_hub(1);
    network(0).wait_for_callers();
    network(1).wait_for_callers();
  }

 private:
  std::vector<std::string> gather(int rank, const std::string& mine) {
    texts_[static_cast<size_t>(rank)] = mine;
    barrier_.arrive_and_wait();
    std::vector<std::string> all = texts_;
    barrier_.arrive_and_wait();
    if (rank == 0 && all[0].find('.') != std::string::npos) {
      std::istringstream words(all[0]);
      std::string pid, network, hex;
      words >> pid >> network >> hex;
      if (hex.size() == 64)
        secret_ = secret_from_hex(hex);
      else
        told_ = all[0];
    }
    return all;
  }

  const int size_;
  std::vector<std::string> texts_;
  std::barrier<> barrier_;
  std::vector<std::unique_ptr<PeerNetwork>> networks_;
  std::string told_;
  Secret secret_{};
  std::atomic<bool> done_ = false;
  std::array<std::atomic<size_t>, 2> heard_{};
  std::vector<std::thread> pumps_;
};

constexpr size_t kAnyBody = 4096;

Channel stranger(const PeerAddress& place) { return connect_to(place.address, place.port, 3s, kAnyBody); }

void send_raw(const Channel& channel, const std::string& bytes) {
  // It may be gone already, which is the point.
  static_cast<void>(::send(channel.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL));
}

/// Whether the hub lets go of a caller within `timeout`, whatever it says before.
bool is_let_go(Channel& channel, std::chrono::milliseconds timeout) {
  try {
    for (const auto end = std::chrono::steady_clock::now() + timeout; std::chrono::steady_clock::now() < end;)
      wait_for_message(channel, timeout);
  } catch (const Error& error) {
    return std::string(error.what()) == "connection closed";
  }
  return false;
}

Nonce challenge_of(Channel& channel) {
  Challenge challenge;
  const Message message = wait_for_message(channel, 3s);
  REQUIRE(message.kind == MessageKind::challenge);
  copy_body(message, &challenge, sizeof challenge);
  return challenge.hub;
}

Hello hello_to(const Nonce& hub, const Secret& secret, int rank) {
  Hello hello{.rank = rank, .caller = draw_nonce()};
  hello.proof = prove(secret, Side::caller, rank, hub, hello.caller);
  return hello;
}

size_t open_files() {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}

}  // namespace

TEST_CASE("peer network: ranks of one machine meet on its loopback, and the port is closed then") {
  Ranks ranks(3);
  CHECK(ranks.told().starts_with("127."));
  CHECK(std::count(ranks.told().begin(), ranks.told().end(), '.') == 3);  // one address
  ranks.meet();
  CHECK_THROWS_WITH(stranger(ranks.place()), ContainsSubstring("refused"));
}

TEST_CASE("peer network: what is not of the job is let go, and the ranks meet all the same") {
  Ranks ranks(3);
  const PeerAddress place = ranks.place();

  SECTION("rubbish") {
    Channel channel = stranger(place);
    send_raw(channel, std::string(100000, 'x'));
    CHECK(is_let_go(channel, 2s));
  }
  SECTION("a message that claims a gigabyte") {
    Channel channel = stranger(place);
    send_raw(channel, as_body(MessageKind::hello) + as_body(uint32_t{1} << 30));
    CHECK(is_let_go(channel, 2s));
  }
  SECTION("half a hello, or nothing") {
    Channel half = stranger(place), silent = stranger(place);
    send_raw(half, as_body(MessageKind::hello) + as_body(static_cast<uint32_t>(sizeof(Hello))) + "abc");
    CHECK(is_let_go(half, 8s));
    CHECK(is_let_go(silent, 8s));
  }
  SECTION("another message than hello") {
    Channel channel = stranger(place);
    channel.send(MessageKind::end, as_body(0));
    CHECK(is_let_go(channel, 2s));
  }
  SECTION("another secret") {
    Channel channel = stranger(place);
    channel.send(MessageKind::hello, as_body(hello_to(challenge_of(channel), draw_secret(), 2)));
    CHECK(is_let_go(channel, 2s));
  }
  SECTION("the hello of a rank, overheard on another connection") {
    Channel first = stranger(place), second = stranger(place);
    const Hello overheard = hello_to(challenge_of(first), ranks.secret(), 2);
    second.send(MessageKind::hello, as_body(overheard));
    CHECK(is_let_go(second, 2s));
  }
  SECTION("a rank that does not exist, and the hub's own") {
    for (const int rank : {0, 3, -1, 1 << 30}) {
      Channel channel = stranger(place);
      channel.send(MessageKind::hello, as_body(hello_to(challenge_of(channel), ranks.secret(), rank)));
      CHECK(is_let_go(channel, 2s));
    }
  }
  SECTION("an address that is none of the job's") {
    // Connected from 127.0.0.2, which no rank says is its own: not even a challenge comes.
    FileDescriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in from{}, to{};
    from.sin_family = to.sin_family = AF_INET;
    to.sin_port = htons(place.port);
    REQUIRE(inet_pton(AF_INET, "127.0.0.2", &from.sin_addr) == 1);
    REQUIRE(inet_pton(AF_INET, place.address.c_str(), &to.sin_addr) == 1);
    REQUIRE(bind(socket.get(), reinterpret_cast<const sockaddr*>(&from), sizeof from) == 0);
    REQUIRE(connect(socket.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0);
    Channel channel(std::move(socket));
    CHECK_THROWS_WITH(wait_for_message(channel, 2s), "connection closed");
  }
  ranks.meet();
}

TEST_CASE("peer network: a rank that is there already is not replaced") {
  Ranks ranks(3);
  ranks.network(2).call_hub(0);
  Channel second = stranger(ranks.place());
  second.send(MessageKind::hello, as_body(hello_to(challenge_of(second), ranks.secret(), 2)));
  CHECK(is_let_go(second, 2s));
  CHECK(ranks.network(0).is_open(2));
}

TEST_CASE("peer network: two thousand held connections take bounded room, and the ranks meet beside them") {
  rlimit limit = {};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  const rlimit before = limit;
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 8192);
  setrlimit(RLIMIT_NOFILE, &limit);
  const size_t most = std::min<size_t>(2000, limit.rlim_cur - 600);
  {
    Ranks ranks(3);
    const size_t at_first = open_files();
    std::vector<Channel> held;
    size_t most_unproven = 0;  // the other ends, which the hub holds
    const auto look = [&] { most_unproven = std::max(most_unproven, open_files() - at_first - held.size()); };
    while (held.size() < most) {
      held.push_back(stranger(ranks.place()));
      if (held.size() % 20 == 0) look();
    }
    for (const auto end = std::chrono::steady_clock::now() + 500ms; std::chrono::steady_clock::now() < end;)
      look();
    CHECK(most_unproven > 0);
    CHECK(most_unproven <= Reception::kMostCallers + 1);
    ranks.meet();
  }
  setrlimit(RLIMIT_NOFILE, &before);
}

TEST_CASE("peer network: a caller tells a stranger at the hub's place from the hub") {
  const FileDescriptor listener = listen_on("127.0.0.1");
  const PeerAddress place{"127.0.0.1", port_of(listener)};
  std::thread impostor([&] {
    std::optional<Caller> caller;
    while (!caller) caller = accept_from(listener);
    Channel channel(std::move(caller->socket), kAnyBody);
    channel.send(MessageKind::challenge, as_body(Challenge{draw_nonce()}));
    wait_for_message(channel, 3s);
    channel.send(MessageKind::welcome, as_body(Welcome{}));
  });
  CHECK_THROWS_WITH(call_reception(place, draw_secret(), 1, 3s), ContainsSubstring("somebody else"));
  impostor.join();
}

TEST_CASE("peer network: messages of any size and kind are whole or refused") {
  MessageBuffer buffer(8);
  const std::string good = as_body(MessageKind::beat) + as_body(uint32_t{3}) + "abc";
  buffer.append(good.data(), 5);
  CHECK_FALSE(buffer.next());
  buffer.append(good.data() + 5, good.size() - 5);
  CHECK(buffer.next()->body == "abc");
  CHECK(buffer.room() == 16);
  SECTION("too large") {
    const std::string large = as_body(MessageKind::beat) + as_body(uint32_t{9});
    buffer.append(large.data(), large.size());
    CHECK_THROWS_AS(buffer.next(), Error);
  }
  SECTION("of no kind") {
    const std::string none = as_body(uint32_t{99}) + as_body(uint32_t{0});
    buffer.append(none.data(), none.size());
    CHECK_THROWS_AS(buffer.next(), Error);
  }
}
