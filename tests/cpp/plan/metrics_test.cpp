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

}  // namespace
}  // namespace dhp::metrics_test
