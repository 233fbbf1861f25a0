#include "fault/handshake.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/random.h>

#include <charconv>
#include <string>

#include "moerun/error.h"

namespace moerun {

namespace {

template <typename Bytes>
Bytes drawn() {
  Bytes bytes{};
  if (getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
    throw Error("watchdog: the system gives no random numbers");
  return bytes;
}

}  // namespace

Secret draw_secret() { return drawn<Secret>(); }
Nonce draw_nonce() { return drawn<Nonce>(); }

std::string to_hex(const Secret& secret) { return fmt::format("{:02x}", fmt::join(secret, "")); }

Secret secret_from_hex(std::string_view hex) {
  Secret secret{};
  if (hex.size() != 2 * secret.size()) throw Error("watchdog: the job's secret was not told whole");
  for (size_t i = 0; i < secret.size(); ++i) {
    const char* const digits = hex.data() + 2 * i;
    if (std::from_chars(digits, digits + 2, secret[i], 16).ptr != digits + 2)
      throw Error("watchdog: the job's secret was not told whole");
  }
  return secret;
}

Proof prove(const Secret& secret, Side side, int32_t rank, const Nonce& hub, const Nonce& caller) {
  std::string text(1, static_cast<char>(side));
  text.append(reinterpret_cast<const char*>(&rank), sizeof rank);
  text.append(hub.begin(), hub.end()).append(caller.begin(), caller.end());
  Proof proof{};
  unsigned int size = 0;
  if (!HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
            reinterpret_cast<const unsigned char*>(text.data()), text.size(), proof.data(), &size) ||
      size != proof.size())
    throw Error("watchdog: HMAC-SHA256 is not available in this OpenSSL");
  return proof;
}

bool is_same(const Proof& a, const Proof& b) { return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0; }

}  // namespace moerun
