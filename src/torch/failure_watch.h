#pragma once

#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>
#include <vector>

namespace dhp {

/// Sees to it that no wait on a process group is silent for ever. One key of the group's store holds the first failure
/// of any rank. While this rank waits, a thread looks at that key a few times a second; when there is a failure, or a
/// wait is over its time, it aborts the transfers, which wakes the waiting thread and leaves the connections alone.
/// (Gloo's own wait with a time-out would close the connections to all ranks.)
class FailureWatch {
 public:
  /// `store` is a copy of the group's store for this watch alone: a blocking call must not hold up others.
  explicit FailureWatch(c10::intrusive_ptr<c10d::Store> store);
  ~FailureWatch();
  FailureWatch(const FailureWatch&) = delete;
  FailureWatch& operator=(const FailureWatch&) = delete;

  using Works = std::vector<c10::intrusive_ptr<c10d::Work>>;
  enum class Outcome { kNothing, kFailed, kTimedOut };

  /// Announces a wait. `end` takes it back and tells whether the watch aborted it, and why.
  std::uint64_t begin(const Works& works, std::chrono::milliseconds timeout);
  Outcome end(std::uint64_t wait);

  /// Writes the failure to the store if it is the first; the first one is then what `failure` gives.
  void record(const std::string& message) noexcept;

  /// The first failure; asks the store only if `look` and none is known.
  std::optional<std::string> failure(bool look);

 private:
  struct Wait {
    Works works;
    std::chrono::steady_clock::time_point deadline;
    Outcome outcome = Outcome::kNothing;
  };

  void run();
  void look_at_store();
  void abort_where_due();

  const c10::intrusive_ptr<c10d::Store> store_;
  std::mutex store_mutex_;  // serialises calls to store_; taken before mutex_, never after it

  std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  std::optional<std::string> failure_;
  std::optional<std::chrono::steady_clock::time_point> store_lost_since_;
  std::map<std::uint64_t, Wait> waits_;
  std::uint64_t next_wait_ = 0;
  bool idle_ = false;
  bool stopping_ = false;
  std::thread thread_;  // started by the first wait
};

}  // namespace dhp
