#pragma once
#include <cstdint>

namespace moerun {

/// Positions of a prompt that the chunked delta rule takes together. Chunks begin at multiples of it, counted
/// from position 0, whatever a step brings: so a prompt's bits do not depend on how it is cut into steps.
inline constexpr int32_t kDeltaChunk = 64;

/// A gated delta net's numbers: of a model, or of a rank's share of it (Qwen3-Next and after: Yang et al.,
/// "Gated Delta Networks", arXiv:2412.06464, in the form of Hugging Face `modeling_qwen3_next.py`).
struct DeltaShape {
  int64_t num_key_heads = 0, num_value_heads = 0;  ///< consecutive value heads share a key head
  int64_t key_dim = 0, value_dim = 0;              ///< elements of a head
  int64_t conv_width = 0;                          ///< positions that the causal convolution takes
  /// Projections are by key heads, [q | k | its v | its z] of each and [its b | its a]; else [q | k | v | z]
  /// and [b | a] of all heads.
  bool by_key_heads = false;

  int64_t group() const { return num_value_heads / num_key_heads; }  ///< value heads of a key head
  int64_t keys() const { return num_key_heads * key_dim; }
  int64_t values() const { return num_value_heads * value_dim; }
  /// Of the convolution: queries, keys, values.
  int64_t channels() const { return 2 * keys() + values(); }
  /// Columns of the projection.
  int64_t width() const { return channels() + values(); }
  DeltaShape of_rank(int tensor) const {
    DeltaShape out = *this;
    out.num_key_heads /= tensor, out.num_value_heads /= tensor;
    return out;
  }
};

/// Where the projection's columns are; `head` counts key heads for q and k, value heads for the others.
struct DeltaColumns {
  explicit DeltaColumns(const DeltaShape& shape) : shape_(shape) {}
  int64_t q(int64_t head) const { return shape_.by_key_heads ? head * of_key_head() : head * shape_.key_dim; }
  int64_t k(int64_t head) const {
    return shape_.by_key_heads ? q(head) + shape_.key_dim : shape_.keys() + q(head);
  }
  int64_t v(int64_t head) const {
    return shape_.by_key_heads
               ? q(head / shape_.group()) + 2 * shape_.key_dim + head % shape_.group() * shape_.value_dim
               : 2 * shape_.keys() + head * shape_.value_dim;
  }
  int64_t z(int64_t head) const {
    return v(head) + (shape_.by_key_heads ? shape_.group() * shape_.value_dim : shape_.values());
  }
  int64_t b(int64_t head) const {
    return shape_.by_key_heads ? head / shape_.group() * 2 * shape_.group() + head % shape_.group() : head;
  }
  int64_t a(int64_t head) const {
    return b(head) + (shape_.by_key_heads ? shape_.group() : shape_.num_value_heads);
  }

 private:
  int64_t of_key_head() const { return 2 * (shape_.key_dim + shape_.group() * shape_.value_dim); }
  DeltaShape shape_;
};

}  // namespace moerun
