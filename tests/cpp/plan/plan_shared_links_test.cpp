// Plans for nodes that share NICs or a switch, against the plans that take each rank's link for its own.
#include <gtest/gtest.h>

#include <cmath>

#include "dhp/simulator.h"
#include "plan/plan_support.h"
#include "random_case.h"

namespace dhp::plan_shared_links_test {
namespace {

double simulated_s(const Plan& plan, const test::Case& made) {
  return simulate(plan, made.batch, made.cluster, made.cost).steps[0].tasks_end_s;
}

/// The same case before anybody shares links.
test::Case with_own_links(test::Case made) {
  made.cluster.node_bandwidth_bytes_per_s = made.cluster.switch_bandwidth_bytes_per_s = 0.0;
  return made;
}

PlanResult planned(const test::Case& made) { return plan_batch(made.batch, made.cluster, made.cost, made.options); }

TEST(PlanSharedLinks, PlansAreValidAndNeverBehindThoseForLinksOfOnesOwn) {
  int compared = 0;
  int gained = 0;
  for (const char* planner : {"free", "lockstep"}) {
    for (std::uint64_t seed = 1; seed <= 300; ++seed) {
      SCOPED_TRACE(std::string(planner) + ", seed " + std::to_string(seed));
      test::Case made = test::random_case(seed, planner);
      const double link = made.cluster.inter_node.bandwidth_bytes_per_s;
      if (seed % 3 != 0) made.cluster.node_bandwidth_bytes_per_s = link * 0.7;
      if (seed % 3 != 1) made.cluster.switch_bandwidth_bytes_per_s = link * 1.3;
      const PlanResult now = planned(made);
      const PlanResult before = planned(with_own_links(made));
      ASSERT_EQ(now.index(), before.index());
      if (std::holds_alternative<Infeasible>(now)) {
        EXPECT_EQ(std::get<Infeasible>(now).reason, std::get<Infeasible>(before).reason);
        continue;
      }
      const Plan& plan = std::get<Plan>(now);
      EXPECT_EQ(check_plan(plan, made.batch, made.cluster, made.cost), std::vector<std::string>{});
      EXPECT_EQ(check_options(plan, made.batch, made.cluster, made.cost, made.options), std::vector<std::string>{});
      EXPECT_EQ(std::get<Plan>(planned(made)).hash, plan.hash);
      if (plan.tasks.empty() || made.options.pipeline_stages > 1) continue;
      ++compared;
      const double now_s = simulated_s(plan, made);
      const double before_s = simulated_s(std::get<Plan>(before), made);
      EXPECT_LE(now_s, before_s);
      if (now_s < before_s * 0.99) ++gained;
    }
  }
  EXPECT_GT(compared, 300);
  EXPECT_GT(gained, 20);
}

TEST(PlanSharedLinks, LimitsThatNobodyMeetsChangeNothing) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    test::Case made = test::random_case(seed, "free");
    made.cluster.node_bandwidth_bytes_per_s =
        made.cluster.inter_node.bandwidth_bytes_per_s * made.cluster.ranks_per_node * (1 + 1e-12);
    const PlanResult now = planned(made);
    const PlanResult before = planned(with_own_links(made));
    if (!std::holds_alternative<Plan>(now)) continue;
    EXPECT_EQ(std::get<Plan>(now).hash, std::get<Plan>(before).hash);
  }
}

/// Three sequences that need two ranks each, on two nodes of three: 0.75 s of work and 75 bytes to send, both ways at
/// 1,000 bytes a second. All at once, one group lies across the nodes; behind a NIC of 10 bytes a second that takes 7.5
/// s.
TEST(PlanSharedLinks, GroupsStayOnTheirNodes) {
  test::Case made;
  made.cluster = {.nodes = 2,
                  .ranks_per_node = 3,
                  .memory_bytes = 100,
                  .intra_node = {.bandwidth_bytes_per_s = 1000},
                  .inter_node = {.bandwidth_bytes_per_s = 1000},
                  .node_bandwidth_bytes_per_s = 10};
  made.cost.layers = 1;
  made.cost.forward = {.token_s = 0.01, .ring_bytes_per_token = 1};
  made.cost.token_bytes = 1;
  made.batch = test::make_batch({150, 150, 150});
  made.options.max_degree = 2;
  made.options.min_shard_tokens = 1;
  EXPECT_NEAR(simulated_s(std::get<Plan>(planned(with_own_links(made))), made), 0.75 + 7.5, 1e-9);
  const Plan plan = std::get<Plan>(planned(made));
  EXPECT_NEAR(simulated_s(plan, made), 2 * (0.75 + 0.075), 1e-9);
  for (const Task& task : plan.tasks) {
    for (const Rank rank : task.ranks) EXPECT_EQ(made.cluster.node_of(rank), made.cluster.node_of(task.ranks.front()));
  }
}

/// Groups of hundreds of ranks all at once: the simulator would look at their streams for minutes.
TEST(PlanSharedLinks, ManyStreamsAreNotSimulated) {
  test::Case made;
  made.cluster = read_cluster(test::case_file("cluster_910b_8x8.json"));
  made.cluster.nodes = 512;
  made.cost = read_cost_model(test::case_file("cost_qwen3-vl-8b_8192.json"));
  test::Random random(5);
  for (int id = 0; id < made.cluster.ranks(); ++id) {
    const double tokens = 64 / std::pow(1e-3 * static_cast<double>(random.whole(1, 1000)), 1.2);  // up to 255,000
    made.batch.sequences.push_back({id, static_cast<std::int64_t>(std::min(4e5, tokens)), 0});
  }
  made.options.effort = kEffortFast;
  const double link = made.cluster.inter_node.bandwidth_bytes_per_s;
  made.cluster.node_bandwidth_bytes_per_s = 2 * link;
  made.cluster.switch_bandwidth_bytes_per_s = made.cluster.nodes * link;
  const Plan plan = std::get<Plan>(planned(made));
  EXPECT_EQ(check_plan(plan, made.batch, made.cluster, made.cost), std::vector<std::string>{});
  EXPECT_FALSE(
      tasks_end_s(std::get<Plan>(planned(with_own_links(made))), made.batch, made.cluster, made.cost, 1'000'000));
}

}  // namespace
}  // namespace dhp::plan_shared_links_test
