#pragma once

#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>
#include <vector>

namespace dhp {

/// The first failure of any rank, as the store of a process group holds it. A thread of its own talks to the store:
/// should the store's host be frozen or cut off, that thread hangs, and nobody else.
class FailureRecord {
 public:
  FailureRecord(int rank, c10::intrusive_ptr<c10d::Store> store);
  ~FailureRecord();
  FailureRecord(const FailureRecord&) = delete;
  FailureRecord& operator=(const FailureRecord&) = delete;

  /// Writes the failure unless there is one; waits a few seconds for the store's answer. From here on `known` has one.
  void write(const std::string& message) noexcept;

  /// The same for a wait for `peer` that expired. The ranks that wait then say for whom, so that the message can start
  /// with the one that all others wait for in the end.
  void write_expired(const std::string& message, int peer) noexcept;

  /// Asks the store to be read soon; `waiting_for` is the peer of a wait in progress, if any. Or reads it now and waits
  /// a few seconds for the answer.
  void read_soon(std::optional<int> waiting_for = std::nullopt);
  void read_now();

  std::optional<std::string> known() const;

 private:
  struct State;
  void write_job(const std::string& message, std::optional<int> peer) noexcept;
  static void run(const std::shared_ptr<State>& state, const c10::intrusive_ptr<c10d::Store>& store);
  void start_thread_locked();

  const c10::intrusive_ptr<c10d::Store> store_;  // used by the thread alone
  const std::shared_ptr<State> state_;           // shared with a thread that may have to be left behind
  std::thread thread_;                           // started by the first use; guarded by the mutex of the state
};

/// Sees to it that no wait on a process group is silent for ever. While this rank waits, a thread looks a few times a
/// second at the failure record and at the clock; when another rank has failed, or a wait is over its time, it aborts
/// the transfers, which wakes the waiting thread and leaves the connections alone. (Gloo's own wait with a time-out
/// would close the connections to all ranks.)
class FailureWatch {
 public:
  /// `store` is a copy of the group's store for this watch alone: a blocking call must not hold up others.
  FailureWatch(int rank, c10::intrusive_ptr<c10d::Store> store);
  ~FailureWatch();
  FailureWatch(const FailureWatch&) = delete;
  FailureWatch& operator=(const FailureWatch&) = delete;

  FailureRecord& record() { return record_; }

  using Works = std::vector<c10::intrusive_ptr<c10d::Work>>;
  enum class Outcome { kNothing, kFailed, kTimedOut };

  /// Announces a wait; `at` says which peer's transfer it is at. `end` takes it back and tells whether the watch
  /// aborted it, and why.
  std::uint64_t begin(const Works& works, std::chrono::milliseconds timeout);
  void at(std::uint64_t wait, int peer);
  Outcome end(std::uint64_t wait);

 private:
  struct Wait {
    Works works;
    std::chrono::steady_clock::time_point deadline;
    std::optional<int> peer;
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

}  // namespace dhp
