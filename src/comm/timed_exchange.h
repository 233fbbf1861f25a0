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
  Dispatched dispatch(const Routed& tokens, Tensor sums) override {
    const Timed timed(seconds_);
    return exchange_->dispatch(tokens, sums);
  }
  void combine(Tensor sums) override {
    const Timed timed(seconds_);
    exchange_->combine(sums);
  }
  std::string name() const override { return exchange_->name(); }
  double seconds() const override { return seconds_; }
  std::string fault() const override { return exchange_->fault(); }
  void check() const override { exchange_->check(); }
  bool capturable() const override { return exchange_->capturable(); }

 private:
  std::unique_ptr<ExpertExchange> exchange_;
  double seconds_ = 0;
};

}  // namespace moerun
