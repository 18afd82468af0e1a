#include "torch/transport/failure_watch.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <cstdio>

namespace dhp::rt {

using Clock = std::chrono::steady_clock;

FailureWatch::FailureWatch(int rank, int size, c10::intrusive_ptr<c10d::Store> store,
                           std::function<void()> abort_device)
    : record_(rank, size, std::move(store)), abort_device_(std::move(abort_device)) {}

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
    start_thread();
  }
  if (wake) changed_.notify_all();
  return id;
}

void FailureWatch::start_thread() {
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
}

void FailureWatch::add_posted(const c10::intrusive_ptr<c10d::Work>& work, c10::Device device, std::string where,
                              int peer, std::chrono::milliseconds timeout, std::size_t lane) {
  c10::Event ready(device.type());
  ready.record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
  std::lock_guard lock(mutex_);
  posted_.at(lane).push_back({work, std::move(ready), std::move(where), peer, timeout});
  start_thread();
  if (idle_) changed_.notify_all();
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

bool FailureWatch::has_posted() const {
  return std::any_of(posted_.begin(), posted_.end(), [](const auto& lane) { return !lane.empty(); });
}

FailureWatch::Trouble FailureWatch::look_at(Posted& oldest) {
  if (oldest.work->exception()) {
    try {
      std::rethrow_exception(oldest.work->exception());
    } catch (const std::exception& error) {
      return {oldest.where + ": " + plain_error(error.what())};
    }
  }
  if (!oldest.since && oldest.ready.query()) {
    oldest.since = Clock::now();
  } else if (oldest.since && Clock::now() - *oldest.since > oldest.timeout) {
    return {oldest.where + ": " + timeout_words(oldest.timeout), true};
  }
  return {};
}

/// What has not begun waits for this rank's own stream: of this rank, the others shall hear that it is busy.
void FailureWatch::tell_peer(int peer) {
  if (peer == std::exchange(peer_of_device_, peer)) return;
  if (peer == kNoPeer) {
    record_.go_on();
  } else {
    record_.wait_for(peer);
  }
}

/// The oldest of a lane is the one that all others there wait for.
void FailureWatch::look_at_posted() {
  Trouble trouble;
  {
    std::lock_guard lock(mutex_);
    const Posted* first = nullptr;  // of those that have begun
    for (auto& lane : posted_) {
      while (!lane.empty() && lane.front().work->isCompleted()) lane.pop_front();
      if (lane.empty() || !trouble.problem.empty()) continue;
      trouble = look_at(lane.front());
      if (lane.front().since && (!first || *lane.front().since < *first->since)) first = &lane.front();
    }
    tell_peer(first ? first->peer : kNoPeer);
  }
  if (!trouble.problem.empty()) record_.explain(trouble.problem, trouble.is_expired);
}

void FailureWatch::abort_device() {
  std::function<void()> abort;
  {
    std::lock_guard lock(mutex_);
    for (auto& lane : posted_) lane.clear();
    abort = std::exchange(abort_device_, {});
  }
  if (!abort) return;
  *host_is_here_ = false;
  std::thread([abort, is_here = host_is_here_, cause = *record_.known()] {
    constexpr auto kPatience = std::chrono::seconds(10);
    abort();
    std::this_thread::sleep_for(kPatience);
    if (*is_here) return;
    std::fprintf(stderr, "dhp: error: %s\n  this process waits for its device, which does not answer: it ends\n",
                 cause.c_str());
    std::_Exit(1);
  }).detach();
}

void FailureWatch::run() {
  constexpr auto kPeriod = std::chrono::milliseconds(200);
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    idle_ = true;
    changed_.wait(lock, [&] { return stopping_ || !waits_.empty() || has_posted(); });
    idle_ = false;
    if (changed_.wait_for(lock, kPeriod, [&] { return stopping_; })) return;
    if (waits_.empty() && !has_posted()) continue;
    const bool is_on_device = has_posted();
    lock.unlock();
    record_.read_soon();
    if (is_on_device && !record_.known()) look_at_posted();
    const bool is_failed = record_.known().has_value();
    abort_where_due(is_failed);
    if (is_on_device && is_failed) abort_device();
    lock.lock();
  }
}

}  // namespace dhp::rt
