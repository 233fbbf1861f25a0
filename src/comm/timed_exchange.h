#pragma once
#include <chrono>
#include <memory>
#include <utility>

#include "moerun/comm.h"

namespace moerun {

/// Measures how long an exchange that waits on the host takes. Thread contract: the engine thread.
class TimedExchange : public ExpertExchange {
 public:
  explicit TimedExchange(std::unique_ptr<ExpertExchange> exchange) : exchange_(std::move(exchange)) {}

  void begin_step(const std::vector<int32_t>& tokens_of_rank) override {
    exchange_->begin_step(tokens_of_rank);
  }
  Routed dispatch(const Routed& tokens) override {
    const auto began = Clock::now();
    Routed here = exchange_->dispatch(tokens);
    add_since(began);
    return here;
  }
  Tensor partials() override { return exchange_->partials(); }
  Ints partial_offsets() override { return exchange_->partial_offsets(); }
  void combine(Tensor out) override {
    const auto began = Clock::now();
    exchange_->combine(out);
    add_since(began);
  }
  std::string name() const override { return exchange_->name(); }
  bool capturable() const override { return exchange_->capturable(); }

  double seconds() const { return seconds_; }

 private:
  using Clock = std::chrono::steady_clock;
  void add_since(Clock::time_point began) {
    seconds_ += std::chrono::duration<double>(Clock::now() - began).count();
  }

  std::unique_ptr<ExpertExchange> exchange_;
  double seconds_ = 0;
};

}  // namespace moerun
