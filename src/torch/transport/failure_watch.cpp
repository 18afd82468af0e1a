#include "torch/transport/failure_watch.h"

namespace dhp::rt {

using Clock = std::chrono::steady_clock;

FailureWatch::FailureWatch(int rank, int size, c10::intrusive_ptr<c10d::Store> store)
    : record_(rank, size, std::move(store)) {}

FailureWatch::~FailureWatch() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::uint64_t FailureWatch::begin(const Works& works, std::chrono::milliseconds timeout) {
  bool wake = false;
  std::uint64_t id = 0;
  {
    std::lock_guard lock(mutex_);
    id = next_wait_++;
    waits_[id] = Wait{works, Clock::now() + timeout};
    wake = idle_;
    if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  }
  if (wake) changed_.notify_all();
  return id;
}

FailureWatch::Outcome FailureWatch::end(std::uint64_t wait) {
  std::lock_guard lock(mutex_);
  const auto found = waits_.find(wait);
  if (found == waits_.end()) return Outcome::kNothing;
  const Outcome outcome = found->second.outcome;
  waits_.erase(found);
  return outcome;
}

void FailureWatch::abort_where_due(bool failed) {
  std::vector<Works> aborted;
  {
    std::lock_guard lock(mutex_);
    const auto now = Clock::now();
    for (auto& [id, wait] : waits_) {
      if (failed) {
        wait.outcome = Outcome::kFailed;
      } else if (now >= wait.deadline) {
        wait.outcome = Outcome::kTimedOut;
      } else {
        continue;
      }
      aborted.push_back(wait.works);
    }
  }
  for (const Works& works : aborted) {
    for (const auto& work : works) work->abort();
  }
}

void FailureWatch::run() {
  constexpr auto kPeriod = std::chrono::milliseconds(200);
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    idle_ = true;
    changed_.wait(lock, [&] { return stopping_ || !waits_.empty(); });
    idle_ = false;
    if (changed_.wait_for(lock, kPeriod, [&] { return stopping_; })) return;
    if (waits_.empty()) continue;
    lock.unlock();
    record_.read_soon();
    abort_where_due(record_.known().has_value());
    lock.lock();
  }
}

}  // namespace dhp::rt
