#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>

namespace dhp::rt {

/// The time in which this process could run. A gap of more than `longest_look` between two looks at the clock counts as
/// one look: the process or its machine was stopped, or other work took the processors. Who has been paused cannot say
/// how long the others were silent.
class AwakeClock {
 public:
  using Duration = std::chrono::steady_clock::duration;

  explicit AwakeClock(Duration longest_look) : longest_look_(longest_look) {}

  /// Since it was made.
  Duration waited() {
    const auto now = std::chrono::steady_clock::now();
    waited_ += std::min(now - last_, longest_look_);
    last_ = now;
    return waited_;
  }

 private:
  Duration longest_look_;
  Duration waited_{0};
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

/// Waits until `is_over()`, which it returns, for at most `patience` of the time in which this process could run.
template <typename Predicate>
bool wait_awake(std::condition_variable& changed, std::unique_lock<std::mutex>& lock,
                std::chrono::milliseconds patience, Predicate is_over) {
  constexpr std::chrono::milliseconds kLook{100};
  AwakeClock clock(5 * kLook);
  while (!is_over()) {
    const AwakeClock::Duration left = patience - clock.waited();
    if (left.count() <= 0) return false;
    changed.wait_for(lock, std::min<AwakeClock::Duration>(left, kLook));
  }
  return true;
}

}  // namespace dhp::rt
