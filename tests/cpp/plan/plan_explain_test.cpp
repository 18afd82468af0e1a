// explain_plan() on plans small enough to follow by hand.

#include "dhp/explain.h"

#include "plan_support.h"

namespace dhp::plan_explain_test {
namespace {

const Cluster kCluster = {1, 3, 1e6, {1e30, 0.0, 1}, {1e30, 0.0, 1}};

TEST(PlanExplain, FreeSchedule) {
  // rank 0: 4 s of task 0, then task 2 (2 s, shared with rank 1); rank 1: 1 s of task 1, waits 3 s; rank 2: nothing.
  const Batch batch = test::make_batch({400, 100, 400});
  Plan plan;
  plan.schedule = Schedule::free;
  plan.ranks = 3;
  plan.tasks = {test::make_task(0, {0}, {0}), test::make_task(1, {1}, {1}), test::make_task(2, {0, 1}, {2})};
  const Explanation explanation = explain_plan(plan, batch, kCluster, test::seconds_by_length());

  EXPECT_DOUBLE_EQ(explanation.makespan_s, 6.0);
  EXPECT_DOUBLE_EQ(explanation.lower_bound_s, 3.0);
  EXPECT_DOUBLE_EQ(explanation.gap, 1.0);
  EXPECT_DOUBLE_EQ(explanation.idle_share, 9.0 / 18.0);
  EXPECT_EQ(explanation.limited_by, "total work of 3 sequences");
  EXPECT_EQ(explanation.degrees, (std::vector<std::pair<int, int>>{{1, 2}, {2, 1}}));
  ASSERT_EQ(explanation.longest_waits.size(), 2U);
  const Wait& end = explanation.longest_waits[0];
  EXPECT_EQ(end.rank, 2);
  EXPECT_DOUBLE_EQ(end.seconds, 6.0);
  EXPECT_EQ(end.task, -1);
  EXPECT_EQ(end.cause, "has no task left; the step ends with task 2 on rank 0");
  const Wait& peer = explanation.longest_waits[1];
  EXPECT_EQ(peer.rank, 1);
  EXPECT_DOUBLE_EQ(peer.seconds, 3.0);
  EXPECT_DOUBLE_EQ(peer.from_s, 1.0);
  EXPECT_EQ(peer.task, 2);
  EXPECT_EQ(peer.cause, "waits for rank 0, busy with task 0");
}

TEST(PlanExplain, LockstepWaitsAtTheBarrier) {
  // micro-batch 0: rank 0 4 s, ranks 1 and 2 together 1 s; micro-batch 1: rank 2 alone 1 s.
  const Batch batch = test::make_batch({400, 200, 100});
  Plan plan;
  plan.schedule = Schedule::lockstep;
  plan.ranks = 3;
  plan.tasks = {test::make_task(0, {0}, {0}), test::make_task(1, {1, 2}, {1}), test::make_task(2, {2}, {2}, 1)};
  const Explanation explanation = explain_plan(plan, batch, kCluster, test::seconds_by_length());

  EXPECT_DOUBLE_EQ(explanation.makespan_s, 5.0);
  ASSERT_EQ(explanation.longest_waits.size(), 3U);
  EXPECT_EQ(explanation.longest_waits[0].rank, 1);
  EXPECT_DOUBLE_EQ(explanation.longest_waits[0].seconds, 4.0);
  EXPECT_EQ(explanation.longest_waits[0].cause, "has no task left; the step ends with task 2 on rank 2");
  EXPECT_EQ(explanation.longest_waits[1].rank, 2);
  EXPECT_DOUBLE_EQ(explanation.longest_waits[1].seconds, 3.0);
  EXPECT_EQ(explanation.longest_waits[1].cause, "waits at the barrier for rank 0, busy with task 0 of micro-batch 0");
  EXPECT_EQ(explanation.longest_waits[2].rank, 0);
  EXPECT_DOUBLE_EQ(explanation.longest_waits[2].seconds, 1.0);
}

TEST(PlanExplain, OneWaitStandsForAGroup) {
  const Batch batch = test::make_batch({400, 200});
  Plan plan;
  plan.schedule = Schedule::free;
  plan.ranks = 3;
  plan.tasks = {test::make_task(0, {0}, {0}), test::make_task(1, {1, 2}, {1})};
  const Explanation explanation = explain_plan(plan, batch, kCluster, test::seconds_by_length());
  ASSERT_EQ(explanation.longest_waits.size(), 1U);
  EXPECT_EQ(explanation.longest_waits[0].rank, 1);
}

TEST(PlanExplain, NamesTheLimitingSequence) {
  CostModel cost = test::seconds_by_length();
  cost.forward.step_s = 1.0;  // dear enough that spreading the long one does not pay
  const Batch batch = test::make_batch({10, 1000, 10});
  const Plan plan = test::plan_of(plan_batch(batch, kCluster, cost, {}));
  EXPECT_EQ(explain_plan(plan, batch, kCluster, cost).limited_by, "sequence 1 (1000 tokens)");
}

TEST(PlanExplain, NamesTransfersAndMemory) {
  CostModel cost = test::seconds_by_length();
  const auto limited_by = [&](const Batch& batch, const Cluster& cluster) {
    const Plan plan = test::plan_of(plan_batch(batch, cluster, cost, {.tighter_bound = true}));
    const Explanation explanation = explain_plan(plan, batch, cluster, cost);
    EXPECT_EQ(explanation.lower_bound_s, plan.predicted->lower_bound_s);
    EXPECT_GE(explanation.gap, 0.0);
    return explanation.limited_by;
  };
  // Memory makes the long one take two ranks; what they send each other then takes longer than they compute.
  cost.forward.ring_bytes_per_token = 10.0;
  Cluster cluster{1, 3, 600.0, {100.0, 0.0, 1}, {100.0, 0.0, 1}};
  EXPECT_EQ(limited_by(test::make_batch({10, 1000, 10}), cluster), "transfers of sequence 1 (1000 tokens)");
  EXPECT_EQ(limited_by(test::make_batch({1000, 1000, 1000}), cluster), "transfers of 3 sequences");
  // Splitting costs a step a rank, and memory makes it necessary.
  cost.forward.ring_bytes_per_token = 0.0;
  cost.forward.step_s = 4.0;
  EXPECT_EQ(limited_by(test::make_batch({1000}), cluster), "sequence 0 (1000 tokens)");
  EXPECT_EQ(limited_by(test::make_batch({1000, 1000, 1000}), cluster), "memory of 3 sequences");
}

TEST(PlanExplain, NoBoundIsKnownForAllToAll) {
  CostModel cost = test::seconds_by_length();
  cost.query_heads = 2;
  cost.forward.all_to_all_bytes_per_token = 1.0;
  cost.backward.all_to_all_bytes_per_token = 1.0;
  Plan plan;
  plan.ranks = 3;
  plan.tasks = {test::make_task(0, {0, 1}, {0})};
  plan.tasks[0].exchange = Exchange::all_to_all;
  const Explanation explanation = explain_plan(plan, test::make_batch({100}), kCluster, cost);
  EXPECT_EQ(explanation.lower_bound_s, 0.0);
  EXPECT_EQ(explanation.gap, 0.0);
  EXPECT_EQ(explanation.limited_by, "all_to_all, for which no bound is known");
}

TEST(PlanExplain, EmptyPlan) {
  const Plan plan = test::plan_of(plan_batch({}, kCluster, test::seconds_by_length(), {}));
  const Explanation explanation = explain_plan(plan, {}, kCluster, test::seconds_by_length());
  EXPECT_EQ(explanation.makespan_s, 0.0);
  EXPECT_EQ(explanation.gap, 0.0);
  EXPECT_EQ(explanation.limited_by, "nothing: the batch is empty");
  EXPECT_TRUE(explanation.degrees.empty());
  EXPECT_TRUE(explanation.longest_waits.empty());
}

}  // namespace
}  // namespace dhp::plan_explain_test
