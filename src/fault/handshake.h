#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace moerun {

// How ranks' watchdogs know each other. Rank 0 draws a secret, every rank gets it over MPI, and none of it
// ever goes over the connection: who knows it proves that by HMAC-SHA256 (RFC 2104) over numbers that both
// sides have just drawn, so what somebody overheard or recorded proves nothing the next time.
//
//   hub → caller   challenge   the hub's nonce
//   caller → hub   hello       rank, the caller's nonce, proof of both nonces by the caller
//   hub → caller   welcome     proof of both nonces by the hub

using Secret = std::array<unsigned char, 32>;
using Nonce = std::array<unsigned char, 16>;
using Proof = std::array<unsigned char, 32>;

struct Challenge {
  Nonce hub{};
};
struct Hello {
  int32_t rank = 0;
  Nonce caller{};
  Proof proof{};
};
struct Welcome {
  Proof proof{};
};

/// Drawn by the system. Throws Error.
Secret draw_secret();
Nonce draw_nonce();

/// As text for MPI and back. Throws Error when it is none.
std::string to_hex(const Secret& secret);
Secret secret_from_hex(std::string_view hex);

/// What a side of a call can show that knows the secret. `rank` is the caller's.
enum class Side : unsigned char { caller = 1, hub = 2 };
Proof prove(const Secret& secret, Side side, int32_t rank, const Nonce& hub, const Nonce& caller);
/// Takes as long whatever they differ in.
bool is_same(const Proof& a, const Proof& b);

}  // namespace moerun
