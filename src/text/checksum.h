#pragma once
#include <string>
#include <string_view>
#include <utility>

struct evp_md_ctx_st;  // OpenSSL's

namespace moerun {

/// SHA-256 as 64 lower-case hex digits.
std::string sha256_hex(std::string_view data);

/// SHA-256 of what comes in parts. Thread contract: one thread at a time.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&& other) noexcept : context_(std::exchange(other.context_, nullptr)) {}
  Sha256& operator=(Sha256&& other) noexcept {
    std::swap(context_, other.context_);
    return *this;
  }

  void add(std::string_view data);
  /// Of all parts, as 64 lower-case hex digits. The last call.
  std::string hex();

 private:
  evp_md_ctx_st* context_;
};

}  // namespace moerun
