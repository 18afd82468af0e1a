// plan_metrics() and noisy_makespans() against figures worked out by hand.

#include "dhp/metrics.h"

#include <numeric>

#include "cost/transfer.h"
#include "plan_support.h"

namespace dhp::metrics_test {
namespace {

TEST(PlanMetrics, PeersMemoryAndIdleTime) {
  const Cluster cluster = test::make_cluster(1, 4, 1000.0);
  const CostModel cost = test::make_cost();
  const Batch batch = test::make_batch({600, 300, 900, 100});
  const Plan plan = test::make_plan(
      4, {test::make_task(0, {2, 0}, {0}), test::make_task(1, {1}, {1}), test::make_task(2, {0, 1}, {2, 3})});
  const PlanMetrics metrics = plan_metrics(plan, batch, cluster, cost);
  EXPECT_EQ(metrics.peers, (std::vector{2, 1, 1, 0}));
  EXPECT_EQ(metrics.most_peers, 2);
  EXPECT_EQ(metrics.memory_bytes, (std::vector{500.0, 500.0, 300.0, 0.0}));  // a token is a byte
  EXPECT_EQ(metrics.peak_memory_bytes, 500.0);
  EXPECT_EQ(metrics.peak_memory_share, 0.5);
  const Timeline timeline = replay(plan, predict_task_seconds(plan, batch, cluster, cost));
  EXPECT_EQ(metrics.makespan_s, timeline.makespan_s);
  EXPECT_EQ(metrics.idle_share, timeline.idle_share());
  EXPECT_EQ(metrics.slowest_micro_batch_s, 0.0);  // it has none
}

TEST(PlanMetrics, PipelinesWaitForTheSlowestMicroBatchOfEveryStage) {
  const Cluster cluster = test::make_cluster(1, 2, 1000.0);
  const CostModel cost = test::make_cost();
  const Batch batch = test::make_batch({600, 300, 900});
  Plan plan =
      test::make_plan(2, {test::make_task(0, {0}, {0}), test::make_task(1, {1}, {1}), test::make_task(2, {1}, {2})});
  plan.schedule = Schedule::lockstep;
  plan.tasks[2].micro_batch = 1;
  const std::vector<double> seconds = predict_task_seconds(plan, batch, cluster, cost);
  const PlanMetrics metrics = plan_metrics(plan, batch, cluster, cost);
  test::expect_relative(metrics.slowest_micro_batch_s, seconds[2], 1e-12);
  test::expect_relative(metrics.pipeline_s(1), seconds[0] + seconds[2], 1e-12);
  test::expect_relative(metrics.pipeline_s(4), seconds[0] + 4 * seconds[2], 1e-12);
}

TEST(PlanMetrics, ExposedTransferIsWhatTransfersAddToATask) {
  const Cluster cluster = test::make_cluster(1, 4, 1e6);
  Cluster quick = cluster;
  quick.intra_node = {1e30, 0.0, 1};
  CostModel cost = test::make_cost();
  cost.forward.ring_bytes_per_token = 1e4;  // far more than attention hides
  const Batch batch = test::make_batch({600, 400});
  const Plan plan = test::make_plan(4, {test::make_task(0, {0, 1, 2}, {0}), test::make_task(1, {3}, {1})});
  const double slow_s = predict_task_seconds(plan, batch, cluster, cost)[0];
  const double quick_s = predict_task_seconds(plan, batch, quick, cost)[0];
  const PlanMetrics metrics = plan_metrics(plan, batch, cluster, cost);
  ASSERT_GT(slow_s, quick_s);
  test::expect_relative(metrics.exposed_transfer_s, 3 * (slow_s - quick_s), 1e-12);
  test::expect_relative(metrics.exposed_transfer_share, metrics.exposed_transfer_s / (4 * metrics.makespan_s), 1e-12);
  EXPECT_EQ(plan_metrics(plan, batch, quick, cost).exposed_transfer_s, 0.0);
}

TEST(PlanMetrics, NothingOfAllToAllIsHidden) {
  const Cluster cluster = test::make_cluster(1, 4, 1e6);
  CostModel cost = test::make_cost();
  cost.query_heads = 4;
  cost.forward.all_to_all_bytes_per_token = 10.0;
  cost.backward.all_to_all_bytes_per_token = 20.0;
  const Load load = load_of(test::make_batch({800}).sequences);
  const GroupShape shape = consecutive_shape(cluster, 0, 2);
  // Both passes: four exchanges of every layer; bytes of half of the shard; one link of two serves one peer.
  const double expected = 2 * 4 * cost.layers * 1e-3 + (10.0 + 20.0) * 800 / 2 / 2 / 1e4;
  test::expect_relative(exposed_transfer_s(cost, cluster, load, shape, Exchange::all_to_all), expected, 1e-12);
}

TEST(PlanMetrics, EmptyPlan) {
  const PlanMetrics metrics =
      plan_metrics(test::make_plan(4, {}), {}, test::make_cluster(1, 4, 1e6), test::make_cost());
  EXPECT_EQ(metrics.makespan_s, 0.0);
  EXPECT_EQ(metrics.exposed_transfer_share, 0.0);
  EXPECT_EQ(metrics.most_peers, 0);
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

TEST(NoisyMakespans, OneTaskErrsAsTheLogNormalDoes) {
  const Plan plan = test::make_plan(1, {test::make_task(0, {0}, {0})});
  constexpr double kNoise = 0.2;
  const std::vector<double> makespans = noisy_makespans(plan, std::vector{10.0}, kNoise, 20'000, 7);
  ASSERT_EQ(makespans.size(), 20'000U);
  double logs = 0.0;
  double squares = 0.0;
  for (const double makespan : makespans) {
    const double log = std::log(makespan / 10.0);
    logs += log / 20'000.0;
    squares += log * log / 20'000.0;
  }
  EXPECT_NEAR(mean(makespans), 10.0, 0.05);  // six standard errors are 0.085
  EXPECT_NEAR(logs, -kNoise * kNoise / 2, 0.008);
  EXPECT_NEAR(std::sqrt(squares - logs * logs), kNoise, 0.006);
}

TEST(NoisyMakespans, WithoutNoiseThePrediction) {
  const Plan plan =
      test::make_plan(2, {test::make_task(0, {0}, {0}), test::make_task(1, {1}, {1}), test::make_task(2, {0, 1}, {2})});
  EXPECT_EQ(noisy_makespans(plan, std::vector{1.0, 3.0, 2.0}, 0.0, 3, 1), (std::vector{5.0, 5.0, 5.0}));
  EXPECT_TRUE(noisy_makespans(plan, std::vector{1.0, 3.0, 2.0}, 0.1, 0, 1).empty());
}

TEST(NoisyMakespans, BarriersCostWhatTheSlowestOfEveryMicroBatchAdds) {
  // Two ranks, four rounds of equal tasks: with barriers every round waits for the slower of two, without them only the
  // end does.
  std::vector<Task> tasks;
  for (int i = 0; i < 8; ++i) tasks.push_back(test::make_task(i, {i % 2}, {i}, i / 2));
  const std::vector<double> seconds(8, 1.0);
  const double free = mean(noisy_makespans(test::make_plan(2, tasks), seconds, 0.1, 4000, 3));
  const double lockstep = mean(noisy_makespans(test::make_plan(2, tasks, Schedule::lockstep), seconds, 0.1, 4000, 3));
  const double slower_of_two = 0.1 / std::sqrt(std::acos(-1.0));  // mean of the larger of two normal numbers
  EXPECT_NEAR(lockstep, 4 + 4 * slower_of_two, 0.02);
  EXPECT_NEAR(free, 4 + 2 * slower_of_two, 0.02);  // sums of four have twice the deviation
}

TEST(NoisyMakespans, TheSameOnEveryMachine) {
  const Plan plan = test::make_plan(1, {test::make_task(0, {0}, {0}), test::make_task(1, {0}, {1})});
  const std::vector<double> makespans = noisy_makespans(plan, std::vector{1.0, 2.0}, 0.08, 4, 7);
  const std::vector<double> longer = noisy_makespans(plan, std::vector{1.0, 2.0}, 0.08, 9, 7);
  for (std::size_t i = 0; i < makespans.size(); ++i) EXPECT_EQ(longer[i], makespans[i]);
  // Worked out by a Python program of the same definition.
  EXPECT_EQ(makespans,
            (std::vector{0x1.7faacdb6aeb6ep+1, 0x1.7549c216b7e18p+1, 0x1.8e138cb34e6a8p+1, 0x1.8b8c75483d608p+1}));
  EXPECT_NE(noisy_makespans(plan, std::vector{1.0, 2.0}, 0.08, 4, 8), makespans);
}

TEST(NoisyMakespans, RefusesWhatMakesNoSense) {
  const Plan plan = test::make_plan(1, {test::make_task(0, {0}, {0})});
  EXPECT_THROW(noisy_makespans(plan, std::vector{1.0}, -0.1, 1, 1), std::invalid_argument);
  EXPECT_THROW(noisy_makespans(plan, std::vector{1.0}, 1.1, 1, 1), std::invalid_argument);
  EXPECT_THROW(noisy_makespans(plan, std::vector{1.0}, 0.1, -1, 1), std::invalid_argument);
  EXPECT_THROW(noisy_makespans(plan, std::vector{1.0, 2.0}, 0.1, 1, 1), InputError);
}

}  // namespace
}  // namespace dhp::metrics_test
