#pragma once
#include <memory>
#include <utility>

#include "moerun/comm.h"
#include "moerun/timed.h"

namespace moerun {

/// Measures how long an exchange that waits on the host takes. Thread contract: the engine thread.
class TimedExchange : public ExpertExchange {
 public:
  explicit TimedExchange(std::unique_ptr<ExpertExchange> exchange) : exchange_(std::move(exchange)) {}

  void begin_step(const std::vector<int32_t>& tokens_of_rank) override {
    exchange_->begin_step(tokens_of_rank);
  }
  Routed dispatch(const Routed& tokens) override {
    const Timed timed(seconds_);
    return exchange_->dispatch(tokens);
  }
  Tensor partials(Tensor out) override { return exchange_->partials(out); }
  Ints partial_offsets() override { return exchange_->partial_offsets(); }
  void combine(Tensor out) override {
    const Timed timed(seconds_);
    exchange_->combine(out);
  }
  bool takes_copies() const override { return exchange_->takes_copies(); }
  std::string name() const override { return exchange_->name(); }
  double seconds() const override { return seconds_; }

 private:
  std::unique_ptr<ExpertExchange> exchange_;
  double seconds_ = 0;
};

}  // namespace moerun
