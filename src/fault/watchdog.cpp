#include "fault/watchdog.h"

#include "fault/monitor.h"

namespace moerun {

Watchdog::Watchdog(const World& world, const Options& options)
    : monitor_(std::make_unique<Monitor>(world, options, progress_)) {}

Watchdog::~Watchdog() = default;

void Watchdog::set_on_fault(std::function<void()> on_fault) { monitor_->set_on_fault(std::move(on_fault)); }

void Watchdog::fail(const std::string& message, int exit_code) { monitor_->fail(message, exit_code); }

void Watchdog::close() { monitor_->close(); }

}  // namespace moerun
