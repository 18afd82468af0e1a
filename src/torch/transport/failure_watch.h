#pragma once

#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <thread>
#include <torch/csrc/distributed/c10d/Work.hpp>
#include <vector>

#include "torch/transport/failure_record.h"

namespace dhp::rt {

/// Sees to it that no wait on a process group is silent for ever. While this rank waits, a thread looks a few times a
/// second at the failure record and at the clock; when another rank has failed, or a wait is over its time, it aborts
/// the transfers, which wakes the waiting thread and leaves the connections alone. (Gloo's own wait with a time-out
/// would close the connections to all ranks.)
class FailureWatch {
 public:
  /// `store` is a copy of the group's store for this watch alone: a blocking call must not hold up others.
  FailureWatch(int rank, int size, c10::intrusive_ptr<c10d::Store> store);
  ~FailureWatch();
  FailureWatch(const FailureWatch&) = delete;
  FailureWatch& operator=(const FailureWatch&) = delete;

  FailureRecord& record() { return record_; }

  using Works = std::vector<c10::intrusive_ptr<c10d::Work>>;
  enum class Outcome { kNothing, kFailed, kTimedOut };

  /// Announces a wait; `record().wait_for` says which peer's transfer it is at. `end` takes it back and tells whether
  /// the watch aborted it, and why.
  std::uint64_t begin(const Works& works, std::chrono::milliseconds timeout);
  Outcome end(std::uint64_t wait);

 private:
  struct Wait {
    Works works;
    std::chrono::steady_clock::time_point deadline;
    Outcome outcome = Outcome::kNothing;
  };

  void run();
  void abort_where_due(bool failed);

  FailureRecord record_;
  std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  std::map<std::uint64_t, Wait> waits_;
  std::uint64_t next_wait_ = 0;
  bool idle_ = false;
  bool stopping_ = false;
  std::thread thread_;  // started by the first wait
};

}  // namespace dhp::rt
