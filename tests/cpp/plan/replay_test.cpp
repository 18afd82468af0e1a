// Timelines computed by hand.
#include <gtest/gtest.h>

#include <limits>
#include <stdexcept>

#include "dhp/bound.h"
#include "dhp/plan.h"
#include "support.h"

namespace dhp::replay_test {
namespace {

Task task(int id, std::vector<Rank> ranks, int micro_batch) {
  return {.id = id, .ranks = std::move(ranks), .sequences = {id}, .micro_batch = micro_batch};
}

Plan three_rank_plan(Schedule schedule) {
  Plan plan;
  plan.schedule = schedule;
  plan.ranks = 3;
  plan.tasks = {task(0, {0, 1}, 0), task(1, {2}, 0), task(2, {0}, 1), task(3, {2, 1}, 1), task(4, {1}, 2)};
  return plan;
}

const std::vector<double> kSeconds = {4, 1, 2, 3, 5};

TEST(Replay, Free) {
  const Timeline timeline = replay(three_rank_plan(Schedule::free), kSeconds);
  EXPECT_EQ(timeline.start_s, (std::vector<double>{0, 0, 4, 4, 7}));
  EXPECT_EQ(timeline.end_s, (std::vector<double>{4, 1, 6, 7, 12}));
  EXPECT_EQ(timeline.busy_s, (std::vector<double>{6, 12, 4}));
  EXPECT_EQ(timeline.makespan_s, 12);
  EXPECT_DOUBLE_EQ(timeline.idle_share(), 1 - 22.0 / 36.0);
}

TEST(Replay, FreeLetsARankRunAhead) {
  Plan plan = three_rank_plan(Schedule::free);
  plan.tasks = {task(0, {0}, 0), task(1, {1}, 0), task(2, {1}, 1), task(3, {0, 1}, 2)};
  const Timeline timeline = replay(plan, std::vector<double>{10, 1, 1, 1});
  EXPECT_EQ(timeline.start_s, (std::vector<double>{0, 0, 1, 10}));
  EXPECT_EQ(timeline.makespan_s, 11);
  EXPECT_EQ(timeline.busy_s, (std::vector<double>{11, 3, 0}));
}

TEST(Replay, LockstepWaitsForTheSlowestOfAMicroBatch) {
  const Timeline timeline = replay(three_rank_plan(Schedule::lockstep), kSeconds);
  EXPECT_EQ(timeline.start_s, (std::vector<double>{0, 0, 4, 4, 7}));
  Plan plan = three_rank_plan(Schedule::lockstep);
  plan.tasks = {task(0, {0}, 0), task(1, {1}, 0), task(2, {1}, 1), task(3, {0}, 1), task(4, {2}, 4)};
  const Timeline other = replay(plan, std::vector<double>{10, 1, 1, 2, 3});
  EXPECT_EQ(other.start_s, (std::vector<double>{0, 0, 10, 10, 12}));
  EXPECT_EQ(other.makespan_s, 15);  // 10 + 2 + 3
}

TEST(Replay, RoundsAreFreeBetweenBarriers) {
  Plan plan = three_rank_plan(Schedule::rounds);
  plan.tasks = {task(0, {0}, 0), task(1, {0, 1}, 0), task(2, {1}, 0), task(3, {2}, 1), task(4, {1}, 1)};
  const Timeline timeline = replay(plan, std::vector<double>{2, 3, 4, 1, 6});
  EXPECT_EQ(timeline.start_s, (std::vector<double>{0, 2, 5, 9, 9}));
  EXPECT_EQ(timeline.end_s, (std::vector<double>{2, 5, 9, 10, 15}));
  EXPECT_EQ(timeline.busy_s, (std::vector<double>{5, 13, 1}));
}

TEST(Replay, EmptyPlan) {
  const Timeline timeline = replay({.schedule = Schedule::free, .ranks = 4}, {});
  EXPECT_EQ(timeline.makespan_s, 0);
  EXPECT_EQ(timeline.busy_s.size(), 4U);
  EXPECT_EQ(timeline.idle_share(), 0);
}

TEST(Replay, WrongArguments) {
  const Plan plan = three_rank_plan(Schedule::free);
  EXPECT_THROW(replay(plan, std::vector<double>{1, 2}), InputError);
  Plan outside = plan;
  outside.tasks[3].ranks = {3};
  EXPECT_THROW(replay(outside, kSeconds), InputError);
  outside.tasks[3].ranks = {-1};
  EXPECT_THROW(replay(outside, kSeconds), InputError);
}

TEST(Predict, SaysWhatThePlanLacks) {
  const Cluster cluster = read_cluster(test::case_file("cluster_910b_1x6.json"));
  const CostModel cost = read_cost_model(test::case_file("cost_qwen3-vl-2b.json"));
  const Batch batch{.sequences = {{0, 100, 0}, {1, 100, 0}, {2, 100, 0}, {3, 100, 0}}};
  Plan plan = three_rank_plan(Schedule::free);
  const std::string lacking = test::input_error([&] { predict_task_seconds(plan, batch, cluster, cost); });
  EXPECT_NE(lacking.find("tasks[4].sequences: found sequence 4"), std::string::npos) << lacking;
  plan.tasks[2].ranks = {6};
  const std::string outside = test::input_error([&] { predict_task_seconds(plan, batch, cluster, cost); });
  EXPECT_NE(outside.find("tasks[2].ranks: found rank 6, expected 0 to 5"), std::string::npos) << outside;
  plan.tasks[1].ranks = {};
  const std::string empty = test::input_error([&] { predict_task_seconds(plan, batch, cluster, cost); });
  EXPECT_NE(empty.find("tasks[1].ranks"), std::string::npos) << empty;
}

TEST(Predict, FindsAnyIds) {
  // Dense, sparse, negative, and as far apart as ids can be: the times depend on the sequences alone.
  const Cluster cluster = read_cluster(test::case_file("cluster_910b_1x6.json"));
  const CostModel cost = read_cost_model(test::case_file("cost_qwen3-vl-2b.json"));
  constexpr std::int64_t kLeast = std::numeric_limits<std::int64_t>::min();
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  std::vector<double> expected;
  for (const std::vector<std::int64_t>& ids :
       std::vector<std::vector<std::int64_t>>{{2, 0, 1}, {-7, 900, 4}, {0, kMost, kLeast}, {kMost, kMost - 1, 0}}) {
    const Batch batch{.sequences = {{ids[0], 9000, 0}, {ids[1], 100, 40}, {ids[2], 4000, 16000}}};
    Plan plan;
    plan.ranks = 6;
    plan.tasks = {task(0, {0, 3}, 0), task(1, {3}, 0)};
    plan.tasks[0].sequences = {ids[2], ids[0]};
    plan.tasks[1].sequences.assign(1, ids[1]);  // a list of one: a false warning of some g++ 12
    const std::vector<double> seconds = predict_task_seconds(plan, batch, cluster, cost);
    if (expected.empty()) expected = seconds;
    EXPECT_EQ(seconds, expected);
    for (const std::int64_t lacking : {ids[0] ^ 64, kMost / 3, kLeast / 3}) {
      plan.tasks[1].sequences.assign(1, lacking);
      EXPECT_THROW(predict_task_seconds(plan, batch, cluster, cost), InputError);
    }
  }
}

TEST(Annotate, FillsTimesPredictionAndHash) {
  const Cluster cluster = read_cluster(test::case_file("cluster_910b_1x6.json"));
  const CostModel cost = read_cost_model(test::case_file("cost_qwen3-vl-2b.json"));
  const Batch batch{.sequences = {{0, 9000, 0}, {1, 100, 0}, {2, 4000, 16000}}};
  Plan plan;
  plan.ranks = 6;
  plan.tasks = {task(0, {0, 3}, 0), task(1, {3}, 0), task(2, {1, 2, 5}, 0)};
  annotate(plan, batch, cluster, cost);
  Load first;
  first.add(batch.sequences[0]);
  const double seconds = task_seconds(cost, cluster, first, {2, 1, 2, 2}, Exchange::ring);
  EXPECT_EQ(plan.tasks[0].start_s, 0.0);
  EXPECT_EQ(plan.tasks[0].end_s, seconds);
  EXPECT_EQ(plan.tasks[1].start_s, seconds);
  EXPECT_EQ(plan.tasks[2].start_s, 0.0);
  ASSERT_TRUE(plan.predicted);
  EXPECT_EQ(plan.predicted->makespan_s, std::max(*plan.tasks[1].end_s, *plan.tasks[2].end_s));
  EXPECT_EQ(plan.predicted->lower_bound_s, simple_lower_bound_s(batch, cluster, cost));
  EXPECT_DOUBLE_EQ(plan.predicted->gap, plan.predicted->makespan_s / plan.predicted->lower_bound_s - 1);
  EXPECT_EQ(plan.hash, plan_hash(plan, batch));
  certify(plan, batch, cluster, cost);
  EXPECT_EQ(plan.predicted->lower_bound_s, tighter_lower_bound_s(batch, cluster, cost));
  EXPECT_DOUBLE_EQ(plan.predicted->gap, plan.predicted->makespan_s / plan.predicted->lower_bound_s - 1);
  EXPECT_EQ(check_plan(plan, batch, cluster, cost), std::vector<std::string>{});
  plan.tasks[0].exchange = Exchange::all_to_all;  // for which no bound is known
  annotate(plan, batch, cluster, cost);
  certify(plan, batch, cluster, cost);
  EXPECT_EQ(plan.predicted->lower_bound_s, 0);
  EXPECT_EQ(plan.predicted->gap, 0);
}

TEST(Annotate, EmptyBatchGivesZeros) {
  const Cluster cluster = read_cluster(test::case_file("cluster_910b_1x6.json"));
  const CostModel cost = read_cost_model(test::case_file("cost_qwen3-vl-2b.json"));
  Plan plan;
  plan.ranks = 6;
  annotate(plan, {}, cluster, cost);
  EXPECT_EQ(plan.predicted, (Prediction{0, 0, 0}));
  EXPECT_EQ(check_plan(plan, {}, cluster, cost), std::vector<std::string>{});
}

}  // namespace
}  // namespace dhp::replay_test
