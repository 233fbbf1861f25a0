#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace moerun {

namespace {

double mscale_of(double factor, double mscale) {
  return factor <= 1 ? 1 : 0.1 * mscale * std::log(factor) + 1;
}

double attention_factor_of(const RopeConfig& rope) {
  if (rope.type != RopeConfig::Type::yarn) return 1;
  if (rope.attention_factor != 0) return rope.attention_factor;
  if (rope.mscale != 0 && rope.mscale_all_dim != 0)
    return mscale_of(rope.factor, rope.mscale) / mscale_of(rope.factor, rope.mscale_all_dim);
  return mscale_of(rope.factor, 1);
}

/// YaRN: frequencies that turn often within the original length are kept, slow ones are divided by factor,
/// and those between are blended along a ramp.
void blend_yarn(const ModelConfig& config, std::vector<float>& frequencies) {
  const RopeConfig& rope = config.rope;
  const auto dim = static_cast<double>(config.rotary_dim());
  const auto length =
      static_cast<double>(rope.original_max_position_embeddings > 0 ? rope.original_max_position_embeddings
                                                                    : config.max_position_embeddings);
  const auto dimension_of = [&](double rotations) {
    return dim * std::log(length / (rotations * 2 * std::numbers::pi)) / (2 * std::log(rope.theta));
  };
  double low = dimension_of(rope.beta_fast), high = dimension_of(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;  // no division by zero
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const auto ramp = static_cast<float>(std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0));
    const float interpolated = frequencies[i] / static_cast<float>(rope.factor);
    frequencies[i] = interpolated * ramp + frequencies[i] * (1 - ramp);
  }
}

}  // namespace

RopeTables rope_tables(const ModelConfig& config, int64_t positions) {
  const int64_t half = config.rotary_dim() / 2;
  std::vector<float> frequencies(static_cast<size_t>(half));
  for (int64_t i = 0; i < half; ++i) {
    const double exponent = static_cast<double>(2 * i) / static_cast<double>(config.rotary_dim());
    frequencies[static_cast<size_t>(i)] =
        1.0F / static_cast<float>(std::pow(config.rope.theta, static_cast<float>(exponent)));
  }
  if (config.rope.type == RopeConfig::Type::linear)
    for (float& frequency : frequencies) frequency /= static_cast<float>(config.rope.factor);
  if (config.rope.type == RopeConfig::Type::yarn) blend_yarn(config, frequencies);

  const auto factor = static_cast<float>(attention_factor_of(config.rope));
  RopeTables tables;
  tables.cos.reserve(static_cast<size_t>(positions * half));
  tables.sin.reserve(static_cast<size_t>(positions * half));
  for (int64_t position = 0; position < positions; ++position)
    for (const float frequency : frequencies) {
      const float angle = static_cast<float>(position) * frequency;
      tables.cos.push_back(std::cos(angle) * factor);
      tables.sin.push_back(std::sin(angle) * factor);
    }
  return tables;
}

int64_t most_positions(const ModelConfig& config) {
  if (config.rope.type == RopeConfig::Type::standard) return config.max_position_embeddings;
  const auto original = static_cast<double>(config.rope.original_max_position_embeddings);
  return std::max(config.max_position_embeddings, std::lround(original * config.rope.factor));
}

}  // namespace moerun
