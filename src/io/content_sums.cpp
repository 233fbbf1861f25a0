#include "io/content_sums.h"

#include <fmt/format.h>

#include <algorithm>

#include "moerun/error.h"

namespace moerun {

namespace {

void check(int status) {
  if (status != 1) throw Error("SHA-256 is not available in this OpenSSL");
}

}  // namespace

Sha256::Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
  check(context_ ? EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) : 0);
}

void Sha256::update(std::string_view bytes) {
  check(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()));
}

std::array<unsigned char, 32> Sha256::whole() const {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> copy(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  std::array<unsigned char, 32> out{};
  check(copy ? EVP_MD_CTX_copy_ex(copy.get(), context_.get()) : 0);
  check(EVP_DigestFinal_ex(copy.get(), out.data(), nullptr));
  return out;
}

Sha256::Digest Sha256::digest() const {
  const auto all = whole();
  Digest half{};
  std::copy_n(all.begin(), half.size(), half.begin());
  return half;
}

std::string Sha256::hex() const { return fmt::format("{:02x}", fmt::join(whole(), "")); }

}  // namespace moerun
