#pragma once

#include <c10/core/Event.h>
#include <c10/util/intrusive_ptr.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <torch/csrc/distributed/c10d/Work.hpp>
#include <vector>

#include "torch/transport/failure_record.h"
#include "torch/transport/transport.h"

namespace dhp::rt {

constexpr int kNoPeer = -1;

/// Sees to it that no wait on a process group is silent for ever. While this rank waits, a thread looks a few times a
/// second at the failure record and at the clock; when another rank has failed, or a wait is over its time, it aborts
/// the transfers, which wakes the waiting thread and leaves the connections alone. (Gloo's own wait with a time-out
/// would close the connections to all ranks.) On a device no host waits for a transfer, only later for what comes after
/// it: there the watch looks at all that was posted and is not complete, and ends it by an abort of the whole backend.
class FailureWatch {
 public:
  /// `store` is a copy of the group's store for this watch alone: a blocking call must not hold up others.
  /// `abort_device` ends all transfers on the device; it may take long, and is called once, on a thread of its own. A
  /// host that waits for the device then goes on; where it does not for 10 s (a kernel hangs), the process says why and
  /// ends.
  FailureWatch(int rank, int size, c10::intrusive_ptr<c10d::Store> store, std::function<void()> abort_device = {});
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

  /// Announces transfers of a device that the current stream has just posted; `where` says what this rank did, and
  /// `peer` for whom it waits first (kNoPeer: all). They are complete after those posted before them on their lane.
  /// Their time counts from when those are, and the stream has come to them: hosts run ahead of devices.
  void add_posted(const c10::intrusive_ptr<c10d::Work>& work, c10::Device device, std::string where, int peer,
                  std::chrono::milliseconds timeout, std::size_t lane = 0);
  /// This rank's host has come to the run-time: it does not hang on the device.
  void host_is_here() { *host_is_here_ = true; }

 private:
  struct Wait {
    Works works;
    std::chrono::steady_clock::time_point deadline;
    Outcome outcome = Outcome::kNothing;
  };

  struct Posted {
    c10::intrusive_ptr<c10d::Work> work;
    c10::Event ready;
    std::string where;
    int peer;
    std::chrono::milliseconds timeout;
    std::optional<std::chrono::steady_clock::time_point> since = {};  // when it could start
  };

  /// What is wrong with the oldest transfers of a lane.
  struct Trouble {
    std::string problem;  // empty: nothing
    bool is_expired = false;
  };

  void start_thread();              // with the lock
  bool has_posted() const;          // with the lock
  Trouble look_at(Posted& oldest);  // with the lock
  void tell_peer(int peer);         // with the lock
  void run();
  void abort_where_due(bool failed);
  void look_at_posted();
  void abort_device();

  FailureRecord record_;
  std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  std::map<std::uint64_t, Wait> waits_;
  std::uint64_t next_wait_ = 0;
  std::array<std::deque<Posted>, kLanes> posted_;  // by lane
  int peer_of_device_ = kNoPeer;                   // for whom the device waits, as the record says
  std::function<void()> abort_device_;             // empty once called
  bool idle_ = false;
  bool stopping_ = false;
  std::thread thread_;  // started by the first wait
  // Since the abort; shared with a thread that may outlive this.
  const std::shared_ptr<std::atomic<bool>> host_is_here_ = std::make_shared<std::atomic<bool>>();
};

}  // namespace dhp::rt
