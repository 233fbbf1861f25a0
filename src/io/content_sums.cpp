#include "io/content_sums.h"

#include <fmt/format.h>

#include <algorithm>

namespace moerun {

Sha256::Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
  EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr);
}

void Sha256::update(std::string_view bytes) { EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()); }

std::array<unsigned char, 32> Sha256::whole() const {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> copy(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  std::array<unsigned char, 32> out{};
  EVP_MD_CTX_copy_ex(copy.get(), context_.get());
  EVP_DigestFinal_ex(copy.get(), out.data(), nullptr);
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
