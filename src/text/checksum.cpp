#include "text/checksum.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <array>

#include "moerun/error.h"

namespace moerun {

namespace {

using Digest = std::array<unsigned char, EVP_MAX_MD_SIZE>;

void check(int status) {
  if (status != 1) throw Error("SHA-256 is not available in this OpenSSL");
}

std::string hex_of(const Digest& digest, unsigned int length) {
  return fmt::format("{:02x}", fmt::join(digest.begin(), digest.begin() + length, ""));
}

}  // namespace

std::string sha256_hex(std::string_view data) {
  Digest digest{};
  unsigned int length = 0;
  check(EVP_Digest(data.data(), data.size(), digest.data(), &length, EVP_sha256(), nullptr));
  return hex_of(digest, length);
}

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  check(context_ && EVP_DigestInit_ex(context_, EVP_sha256(), nullptr));
}

Sha256::~Sha256() { EVP_MD_CTX_free(context_); }

void Sha256::add(std::string_view data) { check(EVP_DigestUpdate(context_, data.data(), data.size())); }

std::string Sha256::hex() {
  Digest digest{};
  unsigned int length = 0;
  check(EVP_DigestFinal_ex(context_, digest.data(), &length));
  return hex_of(digest, length);
}

}  // namespace moerun
