// explain_tasks() and explain_changes() on plans small enough to follow by hand.

#include <map>

#include "dhp/bound.h"
#include "dhp/explain.h"
#include "plan_support.h"

namespace dhp::explain_reasons_test {
namespace {

Cluster cluster_of(int nodes, int ranks_per_node, double memory_bytes) {
  return {nodes, ranks_per_node, memory_bytes, {1e30, 0.0, 1}, {1e30, 0.0, 1}};
}

using Texts = std::vector<std::string>;

Texts degrees(const Plan& plan, const Batch& batch, const Cluster& cluster, const PlanOptions& options = {}) {
  Texts texts;
  for (const TaskReason& reason : explain_tasks(plan, batch, cluster, test::seconds_by_length(), options)) {
    texts.push_back(reason.degree);
  }
  return texts;
}

TEST(ExplainTasks, FramesThatDoNotDivideEvenly) {
  CostModel cost = test::seconds_by_length();
  cost.patch_s = 1.0;
  // Five frames of 10 patches, then one of 30: on two ranks three frames and the whole one.
  Batch batch = test::make_batch({100, 100});
  batch.sequences[0].patches = 50;
  batch.sequences[0].frame_patches = 10;
  batch.sequences[1].patches = batch.sequences[1].frame_patches = 30;
  const Plan plan = test::make_plan(2, {test::make_task(0, {0, 1}, {0}), test::make_task(1, {0, 1}, {1})});
  const std::vector<TaskReason> reasons = explain_tasks(plan, batch, cluster_of(1, 2, 1000.0), cost);
  ASSERT_EQ(reasons.size(), 2U);
  const std::string uneven =
      "; its 5 frames do not divide evenly: the fullest share takes 30.00 s, an even one 25.00 s";
  EXPECT_TRUE(reasons[0].degree.ends_with(uneven)) << reasons[0].degree;
  EXPECT_TRUE(reasons[1].degree.ends_with("; its largest frame (30 patches) stays on one rank for 30.00 s"))
      << reasons[1].degree;
}

TEST(ExplainTasks, MemoryAndCost) {
  const Batch batch = test::make_batch({2900, 1800, 300, 100, 100});
  // Room for 1,000 tokens a rank: the first needs all three; splitting costs nothing here.
  const Plan plan = test::make_plan(4, {test::make_task(0, {0, 1, 2}, {0}), test::make_task(1, {0, 1, 2}, {1}),
                                        test::make_task(2, {3, 0, 1}, {2}), test::make_task(3, {3}, {3, 4})});
  const std::vector<TaskReason> reasons =
      explain_tasks(plan, batch, cluster_of(1, 4, 1000.0), test::seconds_by_length());
  ASSERT_EQ(reasons.size(), 4U);
  EXPECT_EQ(reasons[0].degree, "memory: 3 ranks are the fewest that hold it");
  EXPECT_EQ(reasons[0].start, "starts with the step");
  EXPECT_EQ(reasons[0].tokens, 2900);
  EXPECT_DOUBLE_EQ(reasons[0].seconds, 29.0 / 3);
  EXPECT_EQ(reasons[1].degree, "cost: at degree 2 it would take 9.00 s, no fewer rank-seconds");
  EXPECT_EQ(reasons[1].start, "starts when rank 0 is done with task 0");
  EXPECT_EQ(reasons[2].degree, "cost: at degree 2 it would take 1.50 s, no fewer rank-seconds");
  EXPECT_EQ(reasons[2].start, "starts when rank 0 is done with task 1");
  EXPECT_EQ(reasons[3].degree, "2 sequences packed on one rank: they fit, no transfer");
}

TEST(ExplainTasks, TooLongForTheStep) {
  const Batch batch = test::make_batch({900, 100, 600});
  const Plan plan = test::make_plan(
      3, {test::make_task(0, {1}, {1}), test::make_task(1, {0, 1, 2}, {0}), test::make_task(2, {0, 1, 2}, {2})});
  // The step ends at 1 + 3 + 2 = 6 s.
  EXPECT_EQ(
      degrees(plan, batch, cluster_of(1, 3, 1e6)),
      (Texts{"alone on one rank: fits, no transfer", "cost: at degree 2 it would take 4.50 s, no fewer rank-seconds",
             "length: at degree 2 it would take 3.00 s and end 1.00 s after the step"}));
  const Plan lone = test::make_plan(
      3, {test::make_task(0, {0, 1, 2}, {0}), test::make_task(1, {1}, {1}), test::make_task(2, {0, 2}, {2})});
  EXPECT_EQ(degrees(lone, batch, cluster_of(1, 3, 1e6))[2],
            "length: at degree 1 it would take 6.00 s and end 3.00 s after the step");
}

TEST(ExplainTasks, WiderThanItHadToBe) {
  CostModel cost = test::seconds_by_length();
  cost.forward.step_s = 0.06;  // a step a rank: splitting costs rank-seconds
  const Batch batch = test::make_batch({300, 900});
  const Plan plan = test::make_plan(4, {test::make_task(0, {0, 1, 2}, {0}), test::make_task(1, {3}, {1})});
  EXPECT_EQ(explain_tasks(plan, batch, cluster_of(1, 4, 1e6), cost)[0].degree,
            "time: 1.18 s instead of 1.62 s at degree 2; the step had room for that, too");
}

TEST(ExplainTasks, Lockstep) {
  const Batch batch = test::make_batch({900, 300, 400});
  const Plan plan = test::make_plan(
      4, {test::make_task(0, {0, 1, 2}, {0}), test::make_task(1, {3}, {1}), test::make_task(2, {0, 1}, {2}, 1)},
      Schedule::lockstep);
  const std::vector<TaskReason> reasons = explain_tasks(plan, batch, cluster_of(1, 4, 1e6), test::seconds_by_length());
  EXPECT_EQ(reasons[0].degree,
            "length: at degree 2 it would take 4.50 s and hold up micro-batch 0, which takes 3.00 s");
  EXPECT_EQ(reasons[2].start, "starts when task 0 has ended micro-batch 0");
}

TEST(ExplainTasks, FixedDegreesAndNodes) {
  const Batch batch = test::make_batch({400, 400});
  const Plan same = test::make_plan(4, {test::make_task(0, {0, 1}, {0}), test::make_task(1, {1, 2}, {1})});
  EXPECT_EQ(degrees(same, batch, cluster_of(2, 2, 1e6)),
            (Texts{"one degree: every task of the plan has 2 ranks",
                   "one degree: every task of the plan has 2 ranks; spans 2 nodes"}));
  const Plan powers = test::make_plan(4, {test::make_task(0, {0, 1, 2, 3}, {0}), test::make_task(1, {0}, {1})});
  EXPECT_EQ(degrees(powers, batch, cluster_of(2, 2, 150.0))[0],
            "memory: 3 ranks would hold it, 4 is the next power of two; cross-node: wider than a node");
}

TEST(ExplainTasks, WhatTheCapOnTokensForces) {
  const Batch batch = test::make_batch({290, 200, 400});
  const Plan plan = test::make_plan(8, {test::make_task(0, {0, 1, 2}, {0}), test::make_task(1, {3, 4}, {1}),
                                        test::make_task(2, {0, 1, 2, 3, 4}, {2})});
  const Texts reasons = degrees(plan, batch, cluster_of(1, 8, 1e6), {.max_tokens_per_rank = 100});
  EXPECT_EQ(reasons[0], "tokens: 3 ranks are the fewest that hold it under --max-tokens-per-rank 100");
  EXPECT_EQ(reasons[1], "tokens: 2 ranks are the fewest that hold it under --max-tokens-per-rank 100");
  EXPECT_EQ(reasons[2], "length: at degree 4 it would take 1.00 s and end 0.20 s after the step");
  // A cap that the plan breaks has decided nothing, nor have degrees that it has not kept.
  EXPECT_EQ(degrees(plan, batch, cluster_of(1, 8, 1e6), {.max_tokens_per_rank = 90})[0],
            "cost: at degree 2 it would take 1.45 s, no fewer rank-seconds");
  EXPECT_EQ(degrees(plan, batch, cluster_of(1, 8, 110.0), {.degrees_divide = {3}})[2],
            "memory: 4 ranks would hold it; more than --degrees-divide 3 allows");
  // Where memory asks for as many ranks, memory it is.
  EXPECT_EQ(degrees(plan, batch, cluster_of(1, 8, 100.0), {.max_tokens_per_rank = 100})[0],
            "memory: 3 ranks are the fewest that hold it");
}

TEST(ExplainTasks, ComparesWithDegreesThatAreAllowed) {
  const Batch batch = test::make_batch({600, 900, 300});
  const Plan plan = test::make_plan(7, {test::make_task(0, {0, 1, 2, 3, 4, 5}, {0}), test::make_task(1, {6}, {1}),
                                        test::make_task(2, {0, 1, 2}, {2})});
  const Cluster cluster = cluster_of(1, 7, 1e6);
  EXPECT_EQ(degrees(plan, batch, cluster)[0], "cost: at degree 5 it would take 1.20 s, no fewer rank-seconds");
  // Divisors of 6: 1, 2, 3, 6.
  const Texts allowed = degrees(plan, batch, cluster, {.degrees_divide = {6}});
  EXPECT_EQ(allowed[0],
            "cost: at degree 3 it would take 2.00 s, no fewer rank-seconds; --degrees-divide 6 allows no more");
  EXPECT_EQ(allowed[2], "cost: at degree 2 it would take 1.50 s, no fewer rank-seconds");
  // 600 tokens on at most 150 a rank: 4, which 6 is the next divisor from.
  EXPECT_EQ(degrees(plan, batch, cluster_of(1, 7, 900.0), {.degrees_divide = {6}, .max_tokens_per_rank = 150})[0],
            "tokens: 4 ranks would hold it under --max-tokens-per-rank 150, 6 is the next degree under "
            "--degrees-divide 6; --degrees-divide 6 allows no more");
}

TEST(ExplainTasks, NamesTheOptionThatAllowsNoMore) {
  const Batch batch = test::make_batch({600, 100});
  Plan plan = test::make_plan(4, {test::make_task(0, {0, 1}, {0}), test::make_task(1, {2}, {1})});
  plan.planner = "free";
  const std::string length = "length: at degree 1 it would take 6.00 s, longer than the step";
  const std::string alone = "alone on one rank: fits, no transfer";
  const auto reasons = [&](const PlanOptions& options, int nodes = 1) {
    return degrees(plan, batch, cluster_of(nodes, 4 / nodes, 1e6), options);
  };
  EXPECT_EQ(reasons({.min_shard_tokens = 1}), (Texts{length, alone}));
  EXPECT_EQ(reasons({.max_degree = 2, .min_shard_tokens = 1}),
            (Texts{length + "; --max-degree 2 allows no more", alone}));
  EXPECT_EQ(reasons({.min_shard_tokens = 1, .max_peers = 1})[0], length + "; --max-peers 1 allows no more");
  EXPECT_EQ(reasons({.min_shard_tokens = 1, .within_node = true}, 2)[0], length + "; --within-node allows no more");
  EXPECT_EQ(reasons({.min_shard_tokens = 1, .within_node = true})[0], length);
  EXPECT_EQ(reasons({}), (Texts{length, alone + "; --min-shard-tokens 64 allows no more"}));
  EXPECT_EQ(reasons({.min_shard_tokens = 201})[0], length + "; --min-shard-tokens 201 allows no more");
  EXPECT_EQ(reasons({.max_degree = 1})[0], length + "; more than --max-degree 1 allows");
  plan.planner = "static";  // which knows no min_shard_tokens
  EXPECT_EQ(reasons({.min_shard_tokens = 201}), (Texts{length, alone}));
}

TEST(ExplainTasks, RanksThatMayNotIdle) {
  const Batch batch = test::make_batch({300, 900, 300});
  const Plan plan = test::make_plan(
      4, {test::make_task(0, {0, 1, 2}, {0}), test::make_task(1, {3}, {1}), test::make_task(2, {0, 1, 2}, {2}, 1)},
      Schedule::lockstep);
  const std::string cost = "cost: at degree 2 it would take 1.50 s, no fewer rank-seconds";
  EXPECT_EQ(degrees(plan, batch, cluster_of(1, 4, 1e6))[0], cost);
  const Texts reasons = degrees(plan, batch, cluster_of(1, 4, 1e6), {.no_idle_ranks = true});
  EXPECT_EQ(reasons[0], "no idle ranks: at degree 2 ranks would have no task in micro-batch 0 (--no-idle-ranks)");
  EXPECT_EQ(reasons[2], "length: at degree 2 it would take 1.50 s and hold up micro-batch 1, which takes 1.00 s");
}

TEST(ExplainTasks, EmptyPlan) { EXPECT_TRUE(degrees(test::make_plan(2, {}), {}, cluster_of(1, 2, 1e6)).empty()); }

std::map<std::string, Change> by_name(const WhatIf& what_if) {
  std::map<std::string, Change> changes;
  for (const Change& change : what_if.changes) changes[change.what] = change;
  return changes;
}

TEST(ExplainChanges, PlansAgain) {
  const Cluster cluster = test::make_cluster(2, 4, 1000.0);
  const CostModel cost = test::make_cost();
  const Batch batch = test::make_batch({1500, 700, 650, 300, 200, 150, 90});
  const Plan plan = test::plan_of(plan_batch(batch, cluster, cost, {.planner = "paper"}));
  const WhatIf what_if = explain_changes(plan, batch, cluster, cost);
  EXPECT_EQ(what_if.method, "planned again by paper");
  EXPECT_EQ(what_if.from_s, plan.predicted->makespan_s);

  auto changes = by_name(what_if);
  Cluster wider = cluster;
  wider.nodes = 3;
  const Plan replanned = test::plan_of(plan_batch(batch, wider, cost, {.planner = "paper"}));
  EXPECT_EQ(changes["one node more"].makespan_s, replanned.predicted->makespan_s);
  Cluster quicker = cluster;
  quicker.inter_node.bandwidth_bytes_per_s *= 2;
  const Plan quick = test::plan_of(plan_batch(batch, quicker, cost, {.planner = "paper"}));
  EXPECT_EQ(changes["twice the bandwidth between nodes"].makespan_s, quick.predicted->makespan_s);
  EXPECT_TRUE(changes.contains("10 % more memory a rank"));
  EXPECT_TRUE(changes.contains("twice the bandwidth inside nodes"));
  EXPECT_LE(changes["the same tasks without barriers"].makespan_s, plan.predicted->makespan_s);
}

TEST(ExplainChanges, SaysWhyThereIsNoAnswer) {
  const Cluster cluster = test::make_cluster(1, 4, 1000.0);
  const Batch batch = test::make_batch({500, 400, 300});
  const Plan plan = test::plan_of(plan_batch(batch, cluster, test::make_cost(), {.planner = "static:4"}));
  auto changes = by_name(explain_changes(plan, batch, cluster, test::make_cost()));
  EXPECT_NE(changes["one rank more"].no_answer.find("4 does not divide the 5 ranks"), std::string::npos);
}

TEST(ExplainChanges, SaysWhyPlanningAgainHasNoAnswer) {
  const Cluster cluster = test::make_cluster(1, 4, 1000.0);
  const Batch batch = test::make_batch({1500, 400, 300});
  const Plan plan = test::plan_of(plan_batch(batch, cluster, test::make_cost(), {}));
  const WhatIf what_if = explain_changes(plan, batch, cluster, test::make_cost(), {.max_degree = 1});
  EXPECT_EQ(what_if.from_s, 0.0);
  EXPECT_NE(what_if.no_answer.find("sequence 0 needs"), std::string::npos) << what_if.no_answer;
  EXPECT_EQ(by_name(what_if)["one rank more"].from_s, 0.0);
  EXPECT_TRUE(explain_changes(plan, batch, cluster, test::make_cost()).no_answer.empty());
}

/// Plans of a search may be worse on a better cluster; then the plan at hand is kept.
TEST(ExplainChanges, NoImprovementIsALoss) {
  const Batch batch = read_batch(test::case_file("batch_openvid_512.json"));
  const Cluster cluster = read_cluster(test::case_file("cluster_910b_8x8.json"));
  const CostModel cost = read_cost_model(test::case_file("cost_qwen3-vl-8b_8192.json"));
  const PlanOptions options{.max_tokens_per_rank = 2000};
  const Plan plan = test::plan_of(plan_batch(batch, cluster, cost, options));
  Cluster quicker = cluster;
  quicker.inter_node.bandwidth_bytes_per_s *= 2;
  const Plan again = test::plan_of(plan_batch(batch, quicker, cost, options));
  ASSERT_GT(again.predicted->makespan_s, plan.predicted->makespan_s) << "the case shows nothing";

  const WhatIf what_if = explain_changes(plan, batch, cluster, cost, options);
  ASSERT_EQ(what_if.from_s, plan.predicted->makespan_s);
  for (const Change& change : what_if.changes) EXPECT_LE(change.makespan_s, change.from_s) << change.what;
  EXPECT_EQ(by_name(what_if)["twice the bandwidth between nodes"].makespan_s,
            replay(plan, predict_task_seconds(plan, batch, quicker, cost)).makespan_s);
}

TEST(ExplainChanges, StartsFromTheBetterPlanUnlessItBreaksTheOptions) {
  const Cluster cluster = cluster_of(1, 3, 1e6);
  const Batch batch = test::make_batch({300, 300});
  Plan plan = test::make_plan(3, {test::make_task(0, {0, 1, 2}, {0}), test::make_task(1, {0, 1, 2}, {1})});
  plan.planner = "static:1";  // which has room for both on one rank
  EXPECT_DOUBLE_EQ(explain_changes(plan, batch, cluster, test::seconds_by_length()).from_s, 2.0);
  EXPECT_DOUBLE_EQ(explain_changes(plan, batch, cluster, test::seconds_by_length(), {.max_degree = 1}).from_s, 6.0);
}

TEST(ExplainChanges, UnknownPlannersAreAnsweredByBounds) {
  const Cluster cluster = cluster_of(1, 3, 1e6);
  const CostModel cost = test::seconds_by_length();
  const Batch batch = test::make_batch({300, 300, 300});
  Plan plan =
      test::make_plan(3, {test::make_task(0, {0}, {0}), test::make_task(1, {1}, {1}), test::make_task(2, {2}, {2})});
  plan.planner = "by hand";
  const WhatIf what_if = explain_changes(plan, batch, cluster, cost);
  EXPECT_EQ(what_if.method, "lower bounds");
  EXPECT_EQ(what_if.from_s, tighter_lower_bound_s(batch, cluster, cost));
  EXPECT_EQ(by_name(what_if)["one rank more"].makespan_s, tighter_lower_bound_s(batch, cluster_of(1, 4, 1e6), cost));
}

TEST(ExplainChanges, RanksAtFullSpeedAndWithoutTheLongest) {
  Cluster cluster = cluster_of(1, 2, 1e6);
  cluster.rank_speed = {1.0, 0.5};
  CostModel cost = test::seconds_by_length();
  cost.forward.step_s = 1.0;  // dear enough that spreading the long one does not pay
  const Batch batch = test::make_batch({2000, 10});
  Plan plan = test::make_plan(2, {test::make_task(0, {0}, {0}), test::make_task(1, {1}, {1})});
  plan.planner = "by hand";
  auto changes = by_name(explain_changes(plan, batch, cluster, cost));
  EXPECT_TRUE(changes.contains("all ranks at nominal speed"));
  EXPECT_LT(changes["without sequence 0"].makespan_s, changes["without sequence 0"].from_s);
  EXPECT_TRUE(explain_changes(test::make_plan(2, {}), {}, cluster, cost).changes.empty());
}

}  // namespace
}  // namespace dhp::explain_reasons_test
