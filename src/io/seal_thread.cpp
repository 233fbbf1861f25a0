#include "io/seal_thread.h"

#include <utility>

namespace moerun {

SealThread::SealThread(const Run& run)
    : directory_(*run.directory),
      run_id_(run.run_id),
      next_number_(run.next_number),
      ledger_(*run.directory),
      thread_([this] { this->run(); }) {}

SealThread::~SealThread() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void SealThread::submit(SegmentBuilder&& segment) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return failure_ || waiting_.size() < kMostWaiting; });
  if (failure_) std::rethrow_exception(failure_);
  waiting_.push_back(std::move(segment));
  changed_.notify_all();
}

void SealThread::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return failure_ || (waiting_.empty() && !writing_); });
  if (failure_) std::rethrow_exception(failure_);
}

void SealThread::check() {
  const std::lock_guard lock(mutex_);
  if (failure_) std::rethrow_exception(failure_);
}

void SealThread::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return ending_ || !waiting_.empty(); });
    if (waiting_.empty() || failure_) return;
    const SegmentBuilder segment = std::move(waiting_.front());
    waiting_.pop_front();
    writing_ = true;
    changed_.notify_all();
    lock.unlock();
    std::exception_ptr failure;
    try {
      sealed_.push_back(segment.write(directory_, segment_name(next_number_++), run_id_));
      ledger_.append(sealed_.back());
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    writing_ = false;
    failure_ = failure;
    changed_.notify_all();
    if (failure_) return;
  }
}

}  // namespace moerun
