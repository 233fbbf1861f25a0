#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "moerun/error.h"

namespace moerun {

/// What travels as it lies in memory: numbers, and structs of them.
template <typename T>
concept WirePlain = std::is_trivially_copyable_v<T> &&
    (std::is_arithmetic_v<T> || std::is_enum_v<T> || std::is_aggregate_v<T>);

/// Packs values one after the other for a rank that runs the same program: plain values as they lie in
/// memory, strings and vectors after their length (uint64).
class WireWriter {
 public:
  template <WirePlain T>
  void put(const T& value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void put(const std::string& text) {
    put(static_cast<uint64_t>(text.size()));
    bytes_ += text;
  }
  template <typename T>
  void put(const std::vector<T>& values) {
    put(static_cast<uint64_t>(values.size()));
    if constexpr (std::is_trivially_copyable_v<T>) {
      bytes_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
    } else {
      for (const T& value : values) put(value);
    }
  }

  template <typename A, typename B>
  void put(const std::pair<A, B>& pair) {
    put(pair.first);
    put(pair.second);
  }

  const std::string& bytes() const { return bytes_; }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

/// Takes the same values out in the same order. Throws Error when they are not there.
class WireReader {
 public:
  WireReader(const char* data, size_t size) : at_(data), end_(data + size) {}
  explicit WireReader(const std::string& bytes) : WireReader(bytes.data(), bytes.size()) {}

  template <WirePlain T>
  void get(T& value) {
    if constexpr (std::is_same_v<T, bool>) {
      const auto byte = static_cast<unsigned char>(*take(1));
      if (byte > 1) throw Error("a message between ranks has neither yes nor no");
      value = byte == 1;
    } else {
      std::memcpy(&value, take(sizeof value), sizeof value);
    }
  }
  void get(std::string& text) {
    const size_t size = length();
    text.assign(take(size), size);
  }
  template <typename T>
  void get(std::vector<T>& values) {
    const size_t count = length();
    values.clear();
    if constexpr (std::is_trivially_copyable_v<T>) {
      const char* const from = take(count * sizeof(T));
      values.resize(count);
      if (count > 0) std::memcpy(values.data(), from, count * sizeof(T));
    } else {
      for (size_t i = 0; i < count; ++i) get(values.emplace_back());
    }
  }
  template <typename A, typename B>
  void get(std::pair<A, B>& pair) {
    get(pair.first);
    get(pair.second);
  }
  template <typename T>
  T get() {
    T value{};
    get(value);
    return value;
  }
  bool at_end() const { return at_ == end_; }

 private:
  size_t length() {
    const auto count = get<uint64_t>();
    if (count > static_cast<uint64_t>(end_ - at_)) throw Error("a message between ranks is cut short");
    return static_cast<size_t>(count);
  }
  const char* take(size_t size) {
    if (size > static_cast<size_t>(end_ - at_)) throw Error("a message between ranks is cut short");
    return std::exchange(at_, at_ + size);
  }

  const char* at_;
  const char* end_;
};

}  // namespace moerun
