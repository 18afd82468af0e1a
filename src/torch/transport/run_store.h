#pragma once

#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "torch/transport/roll_call.h"

namespace dhp::rt {

/// "rank 5 (host b, pid 123)": this process.
std::string own_name(int rank);

/// What the ranks of a process group tell each other by its store. Every call may block for ever, and throws where the
/// store is gone; one thread uses it (failure_record.h). `on_answer` is called whenever the store has answered.
class RunStore {
 public:
  RunStore(int rank, int size, c10::intrusive_ptr<c10d::Store> store, std::function<void()> on_answer);

  /// How often a rank that computes looks: once a second; less often where more than 8,000 share the store. A look is
  /// two short messages, one of them with an answer.
  static std::chrono::milliseconds period(int size);
  /// And at most how often one does that has gone on to another place.
  static std::chrono::milliseconds least_period(int size);

  /// Says who this rank is.
  void introduce();

  /// Writes a failure; returns the first one of all.
  std::string write(const std::string& message);

  /// Tells where this rank is; returns the failure, if there is one; answers a roll call.
  std::optional<std::string> look(const Presence& present, bool is_known);

  /// Calls the roll, unless another rank does so; returns the first failure, which is the cause found or what a rank
  /// has written meanwhile.
  std::string explain(const std::string& problem, bool expired, Presence present);

  /// How often the rank has looked.
  std::int64_t pulse(int rank);

  /// Tells the others that this rank ends; waits so long at most for them to do the same.
  void leave(Presence present, std::chrono::milliseconds patience);

 private:
  std::optional<std::string> failure();
  void answer(const Presence& present);
  void gather(RollCall& call);
  std::string get(const std::string& key);
  bool check(const std::string& key);

  const int rank_;
  const int size_;
  const c10::intrusive_ptr<c10d::Store> store_;
  const c10::intrusive_ptr<c10d::Store> launcher_;  // where a launcher writes which process has died
  const std::function<void()> on_answer_;
  std::int64_t looks_ = 0;
  bool answered_ = false;
};

}  // namespace dhp::rt
