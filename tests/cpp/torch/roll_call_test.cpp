#include "torch/transport/roll_call.h"

#include <gtest/gtest.h>

namespace dhp::rt::roll_call_test {
namespace {

using Kind = Presence::Kind;

Presence busy(const std::string& place, std::uint64_t collectives = 0, double seconds = 0) {
  return {Kind::kBusy, -1, collectives, seconds, false, place, ""};
}
Presence waiting(int peer, std::uint64_t collectives = 0) {
  return {Kind::kWaiting, peer, collectives, 5, false, "step 3, task 1", ""};
}
Presence collective(std::uint64_t number, const std::string& name = "sum") {
  return {Kind::kCollective, -1, number, 5, false, "step 3, gradients", name};
}

/// Rank 0 asks; its words are "I".
std::string cause_of(const std::vector<std::optional<Presence>>& answers, bool expired) {
  RollCall call{0, expired, "I", {}};
  for (std::size_t rank = 0; rank < answers.size(); ++rank) {
    call.ranks.push_back({answers[rank], "rank " + std::to_string(rank) + " (host b)", "step 2"});
  }
  return find_cause(call);
}

TEST(RollCall, AnAnswerSurvivesTheWay) {
  for (const Presence& sent : {waiting(3, 9), collective(12, "state of the optimizer"), busy("", 1, 2.5)}) {
    const auto read = decode(encode(sent));
    ASSERT_TRUE(read.has_value());
    EXPECT_EQ(read->kind, sent.kind);
    EXPECT_EQ(read->peer, sent.peer);
    EXPECT_EQ(read->collectives, sent.collectives);
    EXPECT_EQ(read->seconds, sent.seconds);
    EXPECT_EQ(read->place, sent.place);
    EXPECT_EQ(read->name, sent.name);
  }
  EXPECT_EQ(decode(encode(busy("two\nlines")))->place, "two lines");
  EXPECT_EQ(decode("nonsense"), std::nullopt);
  EXPECT_EQ(decode("9 0 0 0 0"), std::nullopt);
}

TEST(RollCall, WhoDoesNotAnswerIsTheCause) {
  EXPECT_EQ(cause_of({waiting(1), waiting(2), std::nullopt}, false),
            "rank 2 (host b) was lost, last at step 2 (seen by I)");
  EXPECT_EQ(cause_of({collective(4), std::nullopt, collective(4)}, true),
            "rank 1 (host b) does not answer: it hangs, or its host is cut off, last at step 2 (seen by I)");
  EXPECT_EQ(cause_of({collective(4), std::nullopt, std::nullopt}, false),
            "rank 1 (host b), rank 2 (host b) were lost (seen by I)");
}

TEST(RollCall, OfManyRanksTheFirstAreNamedAndTheRestCounted) {
  std::vector<std::optional<Presence>> answers(8);
  answers[0] = collective(4);
  const std::string cause = cause_of(answers, false);
  EXPECT_EQ(cause.find("rank 1 (host b), rank 2 (host b), rank 3 (host b), rank 4 (host b) and 3 more were lost"), 0U)
      << cause;
}

TEST(RollCall, AChainOfWaitsLeadsToTheRankThatIsBusy) {
  EXPECT_EQ(cause_of({waiting(1), waiting(2), waiting(3), busy("step 3, reading", 0, 61)}, true),
            "rank 3 (host b) keeps the others waiting, at step 3, reading, busy for 61 s: I; rank 1 waits for rank 2; "
            "rank 2 waits for rank 3");
}

TEST(RollCall, InACollectiveThoseThatHaveNotComeAreTheCause) {
  EXPECT_EQ(cause_of({collective(4), busy("step 3, task 1", 3, 7), collective(4)}, true),
            "rank 1 (host b) keeps the others waiting, at step 3, task 1, busy for 7 s: I");
  // Rank 1 waits for rank 2 before it can come: rank 2 is the cause. Rank 3 has been through it and is busy.
  EXPECT_EQ(cause_of({collective(4), waiting(2, 3), busy("step 3, task 2", 3, 7), busy("step 4", 4)}, true),
            "rank 2 (host b) keeps the others waiting, at step 3, task 2, busy for 7 s: I; rank 1 waits for rank 2");
}

TEST(RollCall, NobodyIsBlamedWhereAllAnswerAndNoneIsBehind) {
  EXPECT_EQ(cause_of({collective(4), collective(4)}, true),
            "the network carries nothing although all ranks answer, and none is behind: I");
  EXPECT_EQ(cause_of({waiting(1), busy("step 3, task 1")}, false), "a connection broke although all ranks answer: I");
  EXPECT_EQ(cause_of({waiting(1), waiting(0)}, true), "I; rank 1 waits for rank 0: they wait for each other");
}

TEST(RollCall, ARankThatCameAfterTheTimeOutIsNamed) {
  Presence late = collective(4);
  late.seconds = 1;
  EXPECT_EQ(cause_of({collective(4), collective(4), late}, true),
            "rank 2 (host b) came too late (take a longer timeout_s where ranks are so far apart): I");
}

// The carrier's time-out of another rank breaks connections that this one sees: the other waited in vain all the same.
TEST(RollCall, OneExpiredWaitSpeaksForAll) {
  Presence other = collective(4);
  other.expired = true;
  EXPECT_EQ(cause_of({collective(4), busy("step 3, task 1", 3, 7), other}, false),
            "rank 1 (host b) keeps the others waiting, at step 3, task 1, busy for 7 s: I");
}

TEST(RollCall, ARankThatHasLeftIsNotLost) {
  Presence left = busy("step 3");
  left.kind = Kind::kLeft;
  EXPECT_EQ(cause_of({collective(4), left}, false), "rank 1 (host b) has left the run while others wait: I");
}

TEST(RollCall, DifferentCollectivesOfOneNumberAreNamed) {
  EXPECT_EQ(cause_of({collective(4, "sum"), collective(4, "barrier")}, true),
            "rank 1 (host b) is in the collective \"barrier\" where rank 0 (host b) is in \"sum\": the ranks make "
            "different calls: I");
}

// A collective of the program's own is not announced: the place tells.
TEST(RollCall, AnAskerThatHasNotSaidWhatItWaitsForNamesThoseElsewhere) {
  EXPECT_EQ(cause_of({busy("step 3, own"), busy("step 3, own"), busy("step 2, reading", 0, 9)}, true),
            "rank 2 (host b) keeps the others waiting, at step 2, reading, busy for 9 s: I");
}

}  // namespace
}  // namespace dhp::rt::roll_call_test
