#include <exception>
#include <set>
#include <utility>

#include "torch/failure_watch.h"

namespace dhp {
namespace {

using Clock = std::chrono::steady_clock;

const char* const kFailureKey = "dhp/failure";
const char* const kExpiredKey = "dhp/expired";
// An answer of the store takes well under a millisecond; a frozen host never answers.
constexpr auto kAnswerTime = std::chrono::seconds(3);
// A rank that dies takes its connections with it, and their errors name it: they come first if the store waits a bit.
constexpr auto kStoreGrace = std::chrono::seconds(2);
// Enough for every waiting rank to notice that a wait expired and to say for whom it waits itself.
constexpr auto kExpiredGrace = std::chrono::seconds(1);

std::string waiting_key(int rank) { return "dhp/waiting/" + std::to_string(rank); }

/// Follows who waits for whom, from a wait of `rank` for `peer` that expired, to the rank that waits for nobody.
std::string explain_expired(c10d::Store& store, const std::string& message, int rank, int peer) {
  store.set(waiting_key(rank), std::to_string(peer));
  store.set(kExpiredKey, "1");
  std::this_thread::sleep_for(kExpiredGrace);
  std::string chain;
  std::set<int> seen{rank};
  int last = peer;
  while (seen.insert(last).second) {
    if (!store.check({waiting_key(last)})) {
      std::string text = "rank " + std::to_string(last) + " keeps the others waiting: ";
      return text.append(message).append(chain);
    }
    const int next = std::stoi(store.get_to_str(waiting_key(last)));
    chain.append("; rank ").append(std::to_string(last)).append(" waits for rank ").append(std::to_string(next));
    last = next;
  }
  return message + chain + ": they wait for each other";
}

}  // namespace

struct FailureRecord::State {
  explicit State(int own_rank) : rank(own_rank) {}

  struct Job {
    std::string message;
    std::optional<int> expired_peer;
  };

  const int rank;
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<std::string> failure;
  std::optional<Clock::time_point> lost_since;  // the store answers with errors; its connection does not come back
  std::string lost_reason;
  std::optional<Job> to_write;
  bool to_read = false;
  std::optional<int> waiting_for;
  std::uint64_t reads = 0;  // finished ones
  bool stopping = false;
  bool stopped = false;

  /// Without the lock.
  std::optional<std::string> write_store(c10d::Store& store, const Job& job) const {
    const auto& message = job.expired_peer ? explain_expired(store, job.message, rank, *job.expired_peer) : job.message;
    return store.compareSet(kFailureKey, "", message);
  }

  std::optional<std::string> read_store(c10d::Store& store, std::optional<int> peer) const {
    if (store.check({kFailureKey})) return store.get_to_str(kFailureKey);
    if (peer && store.check({kExpiredKey})) store.set(waiting_key(rank), std::to_string(*peer));
    return std::nullopt;
  }

  void read_or_write(c10d::Store& store, std::unique_lock<std::mutex>& lock) {
    const auto job = std::exchange(to_write, std::nullopt);
    const auto peer = waiting_for;
    to_read = false;
    std::optional<std::string> found;
    std::string problem;
    lock.unlock();
    try {
      found = job ? write_store(store, *job) : read_store(store, peer);
    } catch (const std::exception& error) {
      problem = error.what();
    }
    lock.lock();
    if (!problem.empty()) {
      lost_since = Clock::now();
      lost_reason = problem.substr(0, problem.find('\n'));
    }
    if (found && !failure) failure = found;
    ++reads;
    changed.notify_all();
  }

  void judge_lost_store() {
    if (lost_since && !failure && Clock::now() - *lost_since >= kStoreGrace) {
      failure = "the store of the process group is gone: its host (rank 0, unless a launcher hosts it) has ended: " +
                lost_reason;
    }
  }
};

FailureRecord::FailureRecord(int rank, c10::intrusive_ptr<c10d::Store> store)
    : store_(std::move(store)), state_(std::make_shared<State>(rank)) {}

FailureRecord::~FailureRecord() {
  std::unique_lock lock(state_->mutex);
  if (!thread_.joinable()) return;
  state_->stopping = true;
  state_->changed.notify_all();
  if (state_->changed.wait_for(lock, kAnswerTime, [&] { return state_->stopped; })) {
    lock.unlock();
    thread_.join();
  } else {
    thread_.detach();  // it hangs in a call to the store and owns all that it uses
  }
}

void FailureRecord::run(const std::shared_ptr<State>& state, const c10::intrusive_ptr<c10d::Store>& store) {
  std::unique_lock lock(state->mutex);
  while (true) {
    state->changed.wait(lock, [&] { return state->stopping || state->to_read || state->to_write; });
    if (state->stopping) break;
    state->read_or_write(*store, lock);
  }
  state->stopped = true;
  state->changed.notify_all();
}

void FailureRecord::start_thread_locked() {
  if (!thread_.joinable()) {
    thread_ = std::thread([state = state_, store = store_] { run(state, store); });
  }
}

void FailureRecord::write(const std::string& message) noexcept { write_job(message, std::nullopt); }

void FailureRecord::write_expired(const std::string& message, int peer) noexcept { write_job(message, peer); }

void FailureRecord::write_job(const std::string& message, std::optional<int> peer) noexcept {
  try {
    std::unique_lock lock(state_->mutex);
    if (state_->failure) return;
    if (!state_->lost_since) {
      start_thread_locked();
      state_->to_write = State::Job{message, peer};
      state_->changed.notify_all();
      state_->changed.wait_for(lock, kAnswerTime + kExpiredGrace,
                               [&] { return state_->failure.has_value() || state_->lost_since.has_value(); });
    }
    if (!state_->failure) {
      state_->failure =
          message +
          "; the store of the process group does not answer, so the cause may be its host (rank 0, unless "
          "a launcher hosts it), and the other ranks could not be told";
    }
  } catch (const std::exception&) {
    // No memory, no thread: the exception that is being recorded still ends this rank.
  }
}

void FailureRecord::read_soon(std::optional<int> waiting_for) {
  std::lock_guard lock(state_->mutex);
  state_->judge_lost_store();
  if (state_->failure || state_->lost_since) return;
  start_thread_locked();
  state_->waiting_for = waiting_for;
  state_->to_read = true;
  state_->changed.notify_all();
}

void FailureRecord::read_now() {
  read_soon();
  std::unique_lock lock(state_->mutex);
  if (state_->failure || state_->lost_since) return;
  // One that is under way may have begun before the failure was written.
  const auto enough = state_->reads + 2;
  state_->changed.wait_for(lock, kAnswerTime, [&] {
    if (state_->failure || state_->lost_since || state_->reads >= enough) return true;
    if (!state_->to_read) {
      state_->to_read = true;
      state_->changed.notify_all();
    }
    return false;
  });
}

std::optional<std::string> FailureRecord::known() const {
  std::lock_guard lock(state_->mutex);
  return state_->failure;
}

}  // namespace dhp
