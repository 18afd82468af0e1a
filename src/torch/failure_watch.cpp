#include "torch/failure_watch.h"

#include <exception>

namespace dhp {
namespace {

using Clock = std::chrono::steady_clock;

const std::string kKey = "dhp/failure";
constexpr auto kPeriod = std::chrono::milliseconds(200);
// A rank that dies takes its connections with it, and those errors name it; they come first if the store waits a bit.
constexpr auto kStoreGrace = std::chrono::seconds(2);

}  // namespace

FailureWatch::FailureWatch(c10::intrusive_ptr<c10d::Store> store) : store_(std::move(store)) {}

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

void FailureWatch::record(const std::string& message) noexcept {
  std::string first = message;
  try {
    std::lock_guard store_lock(store_mutex_);
    first = store_->compareSet(kKey, "", message);
  } catch (const std::exception&) {
    // Without a store the others cannot be told; this rank still stops.
    first += " (the others could not be told: the group's store does not answer)";
  }
  std::lock_guard lock(mutex_);
  if (!failure_) failure_ = first;
}

std::optional<std::string> FailureWatch::failure(bool look) {
  {
    std::lock_guard lock(mutex_);
    if (failure_ || !look) return failure_;
  }
  look_at_store();
  std::lock_guard lock(mutex_);
  return failure_;
}

void FailureWatch::look_at_store() {
  std::optional<std::string> found;
  std::string problem;
  try {
    std::lock_guard store_lock(store_mutex_);
    if (store_->check({kKey})) found = store_->get_to_str(kKey);
  } catch (const std::exception& error) {
    problem = error.what();
  }
  std::lock_guard lock(mutex_);
  if (problem.empty()) {
    store_lost_since_.reset();
    if (found && !failure_) failure_ = found;
    return;
  }
  const auto now = Clock::now();
  if (!store_lost_since_) store_lost_since_ = now;
  if (!failure_ && now - *store_lost_since_ >= kStoreGrace) {
    failure_ =
        "the store of the process group is gone: the process that hosts it (rank 0, or torchrun's agent) has ended: " +
        problem.substr(0, problem.find('\n'));
  }
}

void FailureWatch::abort_where_due() {
  std::vector<Works> aborted;
  {
    std::lock_guard lock(mutex_);
    const auto now = Clock::now();
    for (auto& [id, wait] : waits_) {
      if (failure_) {
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
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    idle_ = true;
    changed_.wait(lock, [&] { return stopping_ || !waits_.empty(); });
    idle_ = false;
    if (changed_.wait_for(lock, kPeriod, [&] { return stopping_; })) return;
    if (waits_.empty()) continue;
    const bool known = failure_.has_value();
    lock.unlock();
    if (!known) look_at_store();
    abort_where_due();
    lock.lock();
  }
}

}  // namespace dhp
