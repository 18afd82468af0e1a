#include "torch/transport/failure_record.h"

#include <algorithm>
#include <exception>
#include <utility>
#include <vector>

#include "torch/transport/awake_clock.h"
#include "torch/transport/interrupt.h"
#include "torch/transport/run_store.h"

namespace dhp::rt {

using Clock = std::chrono::steady_clock;
using Kind = Presence::Kind;

namespace {

// An answer of the store takes well under a millisecond; a frozen host never answers.
constexpr auto kAnswerTime = std::chrono::seconds(3);
// A rank that dies takes its connections with it, and their errors name it: they come first if the store waits a bit.
constexpr auto kStoreGrace = std::chrono::seconds(2);
// How long the store's host stays for the others: enough to learn of a failure.
constexpr auto kFarewellTime = std::chrono::seconds(3);
constexpr auto kWaitingPeriod = std::chrono::milliseconds(200);

}  // namespace

struct FailureRecord::Job {
  enum class Kind { kWrite, kExplain, kPulse };
  Kind kind;
  std::string message;
  bool expired = false;
  int rank = -1;  // kPulse
};

struct FailureRecord::State {
  State(int own_rank, int ranks) : rank(own_rank), size(ranks) {}

  const int rank;
  const int size;
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<std::string> failure;
  std::optional<Clock::time_point> lost_since;  // the store answers with errors; its connection does not come back
  std::string lost_reason;
  int host_rank = -1;
  std::string host_words;
  std::optional<Job> job;
  std::optional<std::int64_t> pulse;
  bool to_read = false;
  std::uint64_t reads = 0;  // finished ones
  std::uint64_t steps = 0;  // answers of the store: none for a while means that it is frozen
  Presence presence;
  std::string told_place;  // as the others can read it
  Clock::time_point since = Clock::now();
  Clock::time_point last_look = Clock::now();
  bool stopping = false;
  bool stopped = false;

  Presence present() const {
    Presence result = presence;
    result.seconds = std::chrono::duration<double>(Clock::now() - since).count();
    return result;
  }

  std::chrono::milliseconds period() const {
    if (presence.place != told_place) return RunStore::least_period(size);
    return presence.kind == Kind::kBusy ? RunStore::period(size) : std::max(kWaitingPeriod, RunStore::period(size) / 5);
  }

  /// Call `use` of the store, without the lock; an error of the store is kept.
  template <typename Use>
  void with_store(std::unique_lock<std::mutex>& lock, Use use) {
    std::string problem;
    lock.unlock();
    try {
      use();
    } catch (const std::exception& error) {
      problem = error.what();
      if (problem.empty()) problem = "unknown error";
    }
    lock.lock();
    if (!problem.empty() && !lost_since) {
      lost_since = Clock::now();
      lost_reason = problem.substr(0, problem.find('\n'));
    }
    changed.notify_all();
  }

  void answered() {
    std::lock_guard lock(mutex);
    ++steps;
    changed.notify_all();
  }

  void judge_lost_store(bool at_once) {
    if (!lost_since || failure || (!at_once && Clock::now() - *lost_since < kStoreGrace)) return;
    const std::string who =
        host_words.empty() ? "its host (rank 0, unless a launcher hosts it) has ended" : host_words + " has ended";
    failure = host_rank >= 0 ? host_words + ", which hosted the store of the run, was lost: " + lost_reason
                             : "the store of the process group is gone: " + who + ": " + lost_reason;
  }

  void judge_silent_store(const std::string& message, bool is_own_failure) {
    if (failure) return;
    if (!is_own_failure && !host_words.empty()) {
      failure = host_words + ", which hosts the store of the run, does not answer: it hangs, or is cut off (seen by " +
                message + ")";
    } else {
      failure = message + "; the store of the process group does not answer, so the cause may be its host (" +
                (host_words.empty() ? "rank 0, unless a launcher hosts it" : host_words) +
                "), and the other ranks could not be told";
    }
  }
};

FailureRecord::FailureRecord(int rank, int size, c10::intrusive_ptr<c10d::Store> store)
    : state_(std::make_shared<State>(rank, size)) {
  thread_ = std::thread([state = state_, store = std::move(store)] { run(state, store); });
}

FailureRecord::~FailureRecord() {
  std::unique_lock lock(state_->mutex);
  state_->stopping = true;
  state_->changed.notify_all();
  const auto patience = kAnswerTime + (state_->host_rank == state_->rank ? kFarewellTime : std::chrono::seconds(0));
  if (wait_awake(state_->changed, lock, patience, [&] { return state_->stopped; })) {
    lock.unlock();
    thread_.join();
  } else {
    thread_.detach();  // it hangs in a call to the store and owns all that it uses
  }
}

void FailureRecord::run(const std::shared_ptr<State>& state, const c10::intrusive_ptr<c10d::Store>& store) {
  RunStore run_store(state->rank, state->size, store, [&state = *state] { state.answered(); });
  std::unique_lock lock(state->mutex);
  state->with_store(lock, [&] { run_store.introduce(); });
  while (!state->stopping) {
    while (!state->stopping && !state->to_read && !state->job && Clock::now() < state->last_look + state->period()) {
      state->changed.wait_until(lock, state->last_look + state->period());
    }
    state->last_look = Clock::now();
    if (is_interrupted()) {
      state->with_store(lock, [&] { run_store.write(own_name(state->rank) + " was interrupted (Ctrl-C)"); });
      exit_interrupted();
    }
    if (state->stopping) break;
    const auto job = std::exchange(state->job, std::nullopt);
    const auto present = state->present();
    const bool is_known = state->failure.has_value();
    state->to_read = false;
    state->told_place = present.place;
    if (state->lost_since) continue;
    std::optional<std::string> found;
    std::optional<std::int64_t> pulse;
    state->with_store(lock, [&] {
      if (job && job->kind == Job::Kind::kPulse) pulse = run_store.pulse(job->rank);
      if (job && job->kind == Job::Kind::kWrite) found = run_store.write(job->message);
      if (job && job->kind == Job::Kind::kExplain) found = run_store.explain(job->message, job->expired, present);
      if (!found) found = run_store.look(present, is_known);
    });
    if (found && !state->failure) state->failure = found;
    if (pulse) state->pulse = pulse;
    ++state->reads;
    state->changed.notify_all();
  }
  if (!state->lost_since) {
    const bool stays = state->host_rank == state->rank;
    const auto present = state->present();
    state->with_store(lock, [&] { run_store.leave(present, stays ? kFarewellTime : std::chrono::seconds(0)); });
  }
  state->stopped = true;
  state->changed.notify_all();
}

void FailureRecord::set_store_host(int rank, const std::string& words) {
  std::lock_guard lock(state_->mutex);
  state_->host_rank = rank;
  state_->host_words = words;
}

void FailureRecord::set_place(const std::string& place) {
  std::lock_guard lock(state_->mutex);
  const bool was_told = state_->presence.place == state_->told_place;
  state_->presence.place = place;
  state_->since = Clock::now();
  if (was_told && place != state_->told_place) state_->changed.notify_all();
}

void FailureRecord::wait_for(int peer) {
  std::lock_guard lock(state_->mutex);
  state_->presence.kind = Kind::kWaiting;
  state_->presence.peer = peer;
  state_->since = Clock::now();
}

void FailureRecord::enter_collective(const std::string& name) {
  std::lock_guard lock(state_->mutex);
  state_->presence.kind = Kind::kCollective;
  ++state_->presence.collectives;
  state_->presence.name = name;
  state_->since = Clock::now();
}

void FailureRecord::go_on() {
  std::lock_guard lock(state_->mutex);
  if (state_->failure) return;  // what it waited for stays its answer
  state_->presence.kind = Kind::kBusy;
  state_->since = Clock::now();
}

void FailureRecord::write(const std::string& message) noexcept { hand_over({Job::Kind::kWrite, message}); }

void FailureRecord::explain(const std::string& problem, bool expired) noexcept {
  hand_over({Job::Kind::kExplain, problem, expired});
}

void FailureRecord::hand_over(Job job) noexcept {
  try {
    std::unique_lock lock(state_->mutex);
    if (state_->failure) return;
    const std::string message = job.message;
    const bool is_own_failure = job.kind == Job::Kind::kWrite;
    state_->presence.expired = job.expired;
    state_->job = std::move(job);
    state_->changed.notify_all();
    auto steps = state_->steps;
    while (!state_->failure && !state_->lost_since) {
      const bool moved = wait_awake(state_->changed, lock, kAnswerTime, [&] {
        return state_->failure.has_value() || state_->lost_since.has_value() || state_->steps != steps;
      });
      if (!moved) break;
      steps = state_->steps;
    }
    if (!is_own_failure) state_->judge_lost_store(true);
    state_->judge_silent_store(message, is_own_failure);
  } catch (const std::exception&) {
    // No memory: the exception that is being recorded still ends this rank.
  }
}

void FailureRecord::read_soon() {
  std::lock_guard lock(state_->mutex);
  state_->judge_lost_store(false);
  if (state_->failure || state_->lost_since) return;
  state_->to_read = true;
  state_->changed.notify_all();
}

void FailureRecord::read_now() {
  read_soon();
  std::unique_lock lock(state_->mutex);
  if (state_->failure || state_->lost_since) return;
  // One that is under way may have begun before the failure was written.
  const auto enough = state_->reads + 2;
  wait_awake(state_->changed, lock, kAnswerTime, [&] {
    if (state_->failure || state_->lost_since || state_->reads >= enough) return true;
    if (!state_->to_read) {
      state_->to_read = true;
      state_->changed.notify_all();
    }
    return false;
  });
}

std::int64_t FailureRecord::pulse(int rank) {
  std::unique_lock lock(state_->mutex);
  state_->pulse.reset();
  state_->job = Job{Job::Kind::kPulse, "", false, rank};
  state_->changed.notify_all();
  wait_awake(state_->changed, lock, kAnswerTime, [&] { return state_->pulse || state_->lost_since; });
  return state_->pulse.value_or(-1);
}

std::optional<std::string> FailureRecord::known() const {
  std::lock_guard lock(state_->mutex);
  return state_->failure;
}

}  // namespace dhp::rt
