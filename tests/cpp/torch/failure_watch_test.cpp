#include "torch/transport/failure_watch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

namespace dhp::rt::failure_watch_test {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

/// A transfer that never ends by itself.
class EndlessWork final : public c10d::Work {
 public:
  bool wait(milliseconds /*timeout*/ = kNoTimeout) override {
    std::unique_lock lock(own_mutex_);
    ended_.wait(lock, [&] { return aborted_; });
    return false;
  }
  void abort() override {
    {
      std::lock_guard lock(own_mutex_);
      aborted_ = true;
    }
    ended_.notify_all();
  }

 private:
  std::mutex own_mutex_;
  std::condition_variable ended_;
  bool aborted_ = false;
};

/// A store whose host is frozen: calls block until it is thawed.
class FrozenStore final : public c10d::HashStore {
 public:
  std::vector<std::uint8_t> compareSet(const std::string& key, const std::vector<std::uint8_t>& expected,
                                       const std::vector<std::uint8_t>& desired) override {
    block();
    return c10d::HashStore::compareSet(key, expected, desired);
  }
  bool check(const std::vector<std::string>& keys) override {
    block();
    return c10d::HashStore::check(keys);
  }
  void thaw() {
    {
      std::lock_guard lock(frozen_mutex_);
      thawed_ = true;
    }
    changed_.notify_all();
  }

 private:
  void block() {
    std::unique_lock lock(frozen_mutex_);
    changed_.wait(lock, [&] { return thawed_; });
  }

  std::mutex frozen_mutex_;
  std::condition_variable changed_;
  bool thawed_ = false;
};

/// A store whose host has ended.
class LostStore final : public c10d::HashStore {
 public:
  bool check(const std::vector<std::string>& /*keys*/) override { throw std::runtime_error("connection reset"); }
};

FailureWatch::Outcome wait_in(FailureWatch& watch, int peer, milliseconds timeout) {
  const auto work = c10::make_intrusive<EndlessWork>();
  const auto id = watch.begin({work}, timeout);
  watch.record().wait_for(peer);
  work->wait();
  return watch.end(id);
}

TEST(FailureRecord, TheFirstFailureStays) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  FailureRecord one(0, 3, store);
  FailureRecord other(1, 3, store);
  one.read_now();
  EXPECT_EQ(one.known(), std::nullopt);
  one.write("rank 0: first");
  other.write("rank 1: second");
  EXPECT_EQ(one.known(), "rank 0: first");
  EXPECT_EQ(other.known(), "rank 0: first");
  FailureRecord third(2, 3, store);
  third.read_now();
  EXPECT_EQ(third.known(), "rank 0: first");
}

TEST(FailureRecord, AFrozenStoreHoldsNobodyUpForLong) {
  const auto store = c10::make_intrusive<FrozenStore>();
  {
    FailureRecord record(0, 2, store);
    const auto start = Clock::now();
    record.read_now();
    EXPECT_EQ(record.known(), std::nullopt);
    record.write("rank 0: broken");
    EXPECT_EQ(record.known()->find("rank 0: broken; the store of the process group does not answer"), 0U);
    EXPECT_LT(Clock::now() - start, std::chrono::seconds(30));
  }
  store->thaw();
}

// An idle rank looks once a second, one that goes from place to place up to ten times.
TEST(FailureRecord, ThePlaceIsToldWhenItChangesAndNotMoreOftenThanAllowed) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  FailureRecord record(0, 2, store);
  const auto start = Clock::now();
  const auto seconds_since = [](Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  const auto looks = [&] { return store->check({"dhp/at/0"}) ? std::stoi(store->get_to_str("dhp/at/0")) : 0; };
  bool is_often = false;
  for (int second = 0; second < 30 && !is_often; ++second) {  // a machine that is busy holds it up now and then
    const int before = looks();
    const auto begin = Clock::now();
    for (int step = 0; seconds_since(begin) < 1.0; ++step) {
      record.set_place("step " + std::to_string(step));
      std::this_thread::sleep_for(milliseconds(1));
    }
    is_often = looks() - before > 2 * seconds_since(begin);
  }
  EXPECT_TRUE(is_often);
  EXPECT_LE(looks(), 10 * seconds_since(start) + 1);
  record.set_place("step 7, task 3");
  while (store->get_to_str("dhp/at/0").find(" step 7, task 3") == std::string::npos) {
    ASSERT_LT(Clock::now() - start, std::chrono::minutes(1));
    std::this_thread::sleep_for(milliseconds(5));
  }
}

TEST(FailureWatch, AFailureEndsTheWaitsOfOthers) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  FailureWatch watch(0, 2, store);
  std::thread other([&] {
    std::this_thread::sleep_for(milliseconds(100));
    FailureRecord(1, 2, store).write("rank 1: broken");
  });
  EXPECT_EQ(wait_in(watch, 1, std::chrono::minutes(5)), FailureWatch::Outcome::kFailed);
  EXPECT_EQ(watch.record().known(), "rank 1: broken");
  other.join();
}

TEST(FailureWatch, AWaitExpires) {
  FailureWatch watch(0, 2, c10::make_intrusive<c10d::HashStore>());
  const auto start = Clock::now();
  EXPECT_EQ(wait_in(watch, 1, milliseconds(300)), FailureWatch::Outcome::kTimedOut);
  EXPECT_GE(Clock::now() - start, milliseconds(300));
  EXPECT_EQ(watch.record().known(), std::nullopt);
  // The watch goes on: the next wait expires too.
  EXPECT_EQ(wait_in(watch, 1, milliseconds(100)), FailureWatch::Outcome::kTimedOut);
}

TEST(FailureWatch, ALostStoreEndsTheWaits) {
  FailureWatch watch(0, 2, c10::make_intrusive<LostStore>());
  EXPECT_EQ(wait_in(watch, 1, std::chrono::minutes(5)), FailureWatch::Outcome::kFailed);
  EXPECT_EQ(watch.record().known()->find("the store of the process group is gone"), 0U);
  EXPECT_NE(watch.record().known()->find("connection reset"), std::string::npos);
}

// 0 waits for 1, 1 for 2, 2 for 3; 3 is busy elsewhere. Only rank 0's wait expires.
TEST(FailureWatch, AnExpiredWaitIsTracedToTheRankThatAllWaitFor) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  std::vector<std::thread> others;
  for (const int rank : {1, 2}) {
    others.emplace_back([&store, rank] {
      FailureWatch watch(rank, 4, store);
      EXPECT_EQ(wait_in(watch, rank + 1, std::chrono::minutes(5)), FailureWatch::Outcome::kFailed);
    });
  }
  FailureRecord busy(3, 4, store);
  busy.set_place("step 3, reading");
  FailureWatch watch(0, 4, store);
  EXPECT_EQ(wait_in(watch, 1, milliseconds(300)), FailureWatch::Outcome::kTimedOut);
  watch.record().explain("rank 0 waited", true);
  const std::string known = watch.record().known().value();
  EXPECT_EQ(known.find("rank 3 (host "), 0U) << known;
  EXPECT_NE(known.find(") keeps the others waiting, at step 3, reading, busy for "), std::string::npos) << known;
  EXPECT_NE(known.find(" s: rank 0 waited; rank 1 waits for rank 2; rank 2 waits for rank 3"), std::string::npos)
      << known;
  for (auto& other : others) other.join();
}

TEST(FailureWatch, ACircleOfWaitsIsNamed) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  std::thread other([&store] {
    FailureWatch watch(1, 2, store);
    EXPECT_EQ(wait_in(watch, 0, std::chrono::minutes(5)), FailureWatch::Outcome::kFailed);
  });
  FailureRecord record(0, 2, store);
  record.wait_for(1);
  record.explain("rank 0 waited", true);
  EXPECT_EQ(record.known(), "rank 0 waited; rank 1 waits for rank 0: they wait for each other");
  other.join();
}

// All that rank 1 has said is its name and where it was: it is dead, or frozen.
TEST(FailureRecord, ARankThatDoesNotAnswerIsNamedWithItsLastPlace) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  store->c10d::Store::set("dhp/name/1", std::string("rank 1 (host b, pid 7)"));
  store->c10d::Store::set("dhp/at/1", std::string("12 step 3, task 7"));
  FailureRecord record(0, 2, store);
  record.enter_collective("sum");
  record.explain("rank 0 saw a closed connection", false);
  EXPECT_EQ(record.known(),
            "rank 1 (host b, pid 7) was lost, last at step 3, task 7 (seen by rank 0 saw a closed connection)");
}

TEST(FailureRecord, AReasonThatComesDuringTheRollCallIsTheCause) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  FailureRecord record(0, 2, store);
  std::thread other([&store] {
    std::this_thread::sleep_for(milliseconds(300));
    FailureRecord(1, 2, store).write("rank 1: no space left on device");
  });
  record.explain("rank 0 saw a closed connection", false);
  EXPECT_EQ(record.known(), "rank 1: no space left on device");
  other.join();
}

TEST(FailureRecord, WhatTheLauncherSawIsTheCause) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  store->c10d::Store::set("dhp/lost", std::string("rank 1 was lost: killed by signal 9"));
  FailureRecord record(0, 2, c10::make_intrusive<c10d::PrefixStore>("run0", store));
  record.explain("rank 0 saw a closed connection", false);
  EXPECT_EQ(record.known(), "rank 1 was lost: killed by signal 9");
}

TEST(FailureRecord, TheHostOfAStoreThatDoesNotAnswerIsNamed) {
  const auto frozen = c10::make_intrusive<FrozenStore>();
  {
    FailureRecord record(1, 2, frozen);
    record.set_store_host(0, "rank 0 (host a, pid 1)");
    record.explain("rank 1 waited", true);
    EXPECT_EQ(record.known(),
              "rank 0 (host a, pid 1), which hosts the store of the run, does not answer: it hangs, or is cut off "
              "(seen by rank 1 waited)");
  }
  frozen->thaw();
  FailureRecord record(1, 2, c10::make_intrusive<LostStore>());
  record.set_store_host(0, "rank 0 (host a, pid 1)");
  record.explain("rank 1 waited", false);
  EXPECT_EQ(record.known(), "rank 0 (host a, pid 1), which hosted the store of the run, was lost: connection reset");
}

TEST(FailureRecord, APulseGrowsWhileTheRankLives) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  FailureRecord asker(1, 2, store);
  {
    FailureRecord living(0, 2, store);
    while (asker.pulse(0) < 2) living.read_now();
  }
  const auto last = asker.pulse(0);
  std::this_thread::sleep_for(milliseconds(1500));
  EXPECT_EQ(asker.pulse(0), last);
}

TEST(FailureRecord, TheHostOfTheStoreStaysUntilTheOthersHaveEnded) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  std::optional<FailureRecord> host(std::in_place, 0, 2, store);
  host->set_store_host(0, "rank 0");
  std::atomic<bool> ended = false;
  std::thread other([&] {
    FailureRecord record(1, 2, store);
    std::this_thread::sleep_for(milliseconds(500));
    ended = true;
  });
  while (!store->check({"dhp/name/1"})) std::this_thread::sleep_for(milliseconds(1));
  host.reset();
  EXPECT_TRUE(ended);
  other.join();
}

}  // namespace
}  // namespace dhp::rt::failure_watch_test
