#pragma once

#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <torch/csrc/distributed/c10d/Store.hpp>

namespace dhp::rt {

/// The first failure of any rank, as the store of a process group holds it, and what each rank is doing. A thread of
/// its own talks to the store: should the store's host be frozen or cut off, that thread hangs, and nobody else. It
/// runs from the beginning to the end, whatever this rank computes: a few times a second while the rank waits or goes
/// from place to place, else once a second, it tells where the rank is and looks whether there is a failure, or a roll
/// call to answer.
class FailureRecord {
 public:
  FailureRecord(int rank, int size, c10::intrusive_ptr<c10d::Store> store);
  ~FailureRecord();
  FailureRecord(const FailureRecord&) = delete;
  FailureRecord& operator=(const FailureRecord&) = delete;

  /// Who answers for the store: a rank, which then stays until the others have ended or know of the failure, or -1 and
  /// words ("torchrun on host a").
  void set_store_host(int rank, const std::string& words);

  /// What this rank does from here on: it is at a place ("step 3, task 7"), waits for a peer, is in a collective, or
  /// goes on with neither.
  void set_place(const std::string& place);
  void wait_for(int peer);
  void enter_collective(const std::string& name);
  void go_on();

  /// Writes the failure unless there is one; waits a few seconds for the store's answer. From here on `known` has one.
  void write(const std::string& message) noexcept;

  /// The same for a wait that broke, or that lasted too long (`expired`): asks all ranks what they are doing, which
  /// takes a few seconds where one does not answer, and writes what keeps the run from going on. `problem` says in this
  /// rank's words what it waited for.
  void explain(const std::string& problem, bool expired) noexcept;

  /// Asks the store to be read soon; or reads it now and waits a few seconds for the answer.
  void read_soon();
  void read_now();

  std::optional<std::string> known() const;

  /// A number that grows as long as the rank's process lives; -1 where the store does not tell.
  std::int64_t pulse(int rank);

 private:
  struct State;
  struct Job;
  void hand_over(Job job) noexcept;
  static void run(const std::shared_ptr<State>& state, const c10::intrusive_ptr<c10d::Store>& store);

  const std::shared_ptr<State> state_;  // shared with a thread that may have to be left behind
  std::thread thread_;
};

/// From here on Ctrl-C ends this process with exit code 130, whatever its threads do; where it is a rank of a group,
/// the others are told first. At the second Ctrl-C at once.
void exit_on_interrupt();

/// Ends this process after so many seconds, should it not have ended by itself: a process group waits in its destructor
/// for transfers that may never end.
void exit_within(std::chrono::milliseconds time, int code);

}  // namespace dhp::rt
