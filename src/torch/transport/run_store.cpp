#include "torch/transport/run_store.h"

#include <unistd.h>
#include <algorithm>
#include <array>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <utility>
#include <vector>

#include "torch/transport/awake_clock.h"

namespace dhp::rt {
namespace {

using Clock = std::chrono::steady_clock;

const char* const kAlarmKey = "dhp/alarm";      // there is a failure, or a roll call
const char* const kFailureKey = "dhp/failure";  // the first one
const char* const kCallKey = "dhp/roll_call";   // the rank that calls the roll
const char* const kGoneKey = "dhp/gone";        // how many ranks have ended
const char* const kLostKey = "dhp/lost";        // LOST_KEY of python/dhp/run/joining.py

constexpr auto kPass = std::chrono::milliseconds(100);
// A peer that gives up closes its connections and says why at once: let it come first.
constexpr auto kReasonGrace = std::chrono::milliseconds(500);
// A rank answers within its period, and a launcher says within a second who died.
constexpr auto kAnswerGrace = std::chrono::milliseconds(2000);
// The rank that calls the roll may die over it.
constexpr auto kTakeOver = std::chrono::milliseconds(2500);

std::string key(const char* name, int rank) { return "dhp/" + std::string(name) + "/" + std::to_string(rank); }

c10::intrusive_ptr<c10d::Store> without_prefix(const c10::intrusive_ptr<c10d::Store>& store) {
  auto* prefixed = dynamic_cast<c10d::PrefixStore*>(store.get());
  return prefixed == nullptr ? store : prefixed->getUnderlyingNonPrefixStore();
}

}  // namespace

std::string own_name(int rank) {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host = {'?'};
  return "rank " + std::to_string(rank) + " (host " + host.data() + ", pid " + std::to_string(::getpid()) + ")";
}

RunStore::RunStore(int rank, int size, c10::intrusive_ptr<c10d::Store> store, std::function<void()> on_answer)
    : rank_(rank),
      size_(size),
      store_(std::move(store)),
      launcher_(without_prefix(store_)),
      on_answer_(std::move(on_answer)) {}

std::chrono::milliseconds RunStore::period(int size) { return std::chrono::milliseconds(std::max(1000, size / 8)); }

std::chrono::milliseconds RunStore::least_period(int size) {
  return std::chrono::milliseconds(std::max(100, size / 8));
}

void RunStore::introduce() { store_->set(key("name", rank_), own_name(rank_)); }

bool RunStore::check(const std::string& name) {
  const bool is_there = store_->check({name});
  on_answer_();
  return is_there;
}

std::string RunStore::get(const std::string& name) {
  std::string value = check(name) ? store_->get_to_str(name) : "";
  on_answer_();
  return value;
}

std::string RunStore::write(const std::string& message) {
  std::string first = store_->compareSet(kFailureKey, "", message);
  store_->set(kAlarmKey, "1");
  on_answer_();
  return first;
}

std::optional<std::string> RunStore::failure() {
  if (check(kFailureKey)) return store_->get_to_str(kFailureKey);
  if (launcher_->check({kLostKey})) return write(launcher_->get_to_str(kLostKey));
  return std::nullopt;
}

void RunStore::answer(const Presence& present) {
  store_->set(key("answer", rank_), encode(present));
  answered_ = true;
}

std::optional<std::string> RunStore::look(const Presence& present, bool is_known) {
  store_->set(key("at", rank_), std::to_string(++looks_) + " " + present.place);
  if (is_known || !check(kAlarmKey)) return std::nullopt;
  if (check(kFailureKey)) return store_->get_to_str(kFailureKey);
  if (!answered_ && check(kCallKey)) answer(present);
  return std::nullopt;
}

void RunStore::gather(RollCall& call) {
  for (int rank = 0; rank < size_; ++rank) {
    auto& entry = call.ranks[static_cast<std::size_t>(rank)];
    if (entry.answer || !check(key("answer", rank))) continue;
    entry.answer = decode(store_->get_to_str(key("answer", rank)));
  }
}

std::string RunStore::explain(const std::string& problem, bool expired, Presence present) {
  present.expired = expired;
  answer(present);
  const bool is_caller = store_->compareSet(kCallKey, "", std::to_string(rank_)) == std::to_string(rank_);
  store_->set(kAlarmKey, "1");
  RollCall call{rank_, expired, problem, std::vector<RollCall::Rank>(static_cast<std::size_t>(size_))};
  AwakeClock clock(period(size_));
  const auto patience = 2 * period(size_) + kAnswerGrace + (is_caller ? std::chrono::milliseconds(0) : kTakeOver);
  while (true) {
    if (const auto first = failure()) return *first;
    const auto waited = clock.waited();
    if (is_caller || waited >= patience) gather(call);
    const bool is_complete =
        std::all_of(call.ranks.begin(), call.ranks.end(), [](const auto& rank) { return rank.answer.has_value(); });
    if (waited >= patience || (is_complete && waited >= kReasonGrace)) break;
    std::this_thread::sleep_for(std::max(kPass, period(size_) / 10));
  }
  for (int rank = 0; rank < size_; ++rank) {
    auto& entry = call.ranks[static_cast<std::size_t>(rank)];
    entry.name = get(key("name", rank));
    if (entry.name.empty()) entry.name = "rank " + std::to_string(rank);
    if (entry.answer) continue;
    const std::string last = get(key("at", rank));
    entry.last_place = last.substr(std::min(last.size(), last.find(' ') + 1));
  }
  return write(find_cause(call));
}

std::int64_t RunStore::pulse(int rank) {
  const std::string last = get(key("at", rank));
  return last.empty() ? 0 : std::stoll(last);
}

void RunStore::leave(Presence present, std::chrono::milliseconds patience) {
  present.kind = Presence::Kind::kLeft;
  answer(present);
  const auto end = Clock::now() + patience;
  auto gone = store_->add(kGoneKey, 1);
  while (gone < size_ && Clock::now() < end) {
    std::this_thread::sleep_for(kPass / 5);
    gone = store_->add(kGoneKey, 0);
  }
}

}  // namespace dhp::rt
