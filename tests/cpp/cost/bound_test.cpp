// The parts of the tighter bound, and the bound on batches too large to try all plans.
#include "dhp/bound.h"

#include <limits>

#include "cost/bound/charges.h"
#include "cost/bound/least_transfer.h"
#include "cost/bound/tighter_bound.h"
#include "cost/transfer.h"
#include "plan_support.h"

namespace dhp::bound_test {
namespace {

/// The least over every group of ranks in service, one by one.
std::vector<LeastTransfer> least_of_all_groups(const Cluster& cluster, const CostModel& cost) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const std::vector<Rank> live = cluster.live_ranks();
  std::vector<LeastTransfer> least(live.size() + 1, {kInfinity, kInfinity});
  for (std::uint32_t mask = 1; mask < 1U << live.size(); ++mask) {
    std::vector<Rank> ranks;
    for (std::size_t i = 0; i < live.size(); ++i) {
      if ((mask >> i & 1U) != 0) ranks.push_back(live[i]);
    }
    const GroupShape shape = shape_of(cluster, ranks);
    LeastTransfer& entry = least[ranks.size()];
    entry.fixed_s = std::min(entry.fixed_s, transfer_latency_s(cost, cluster, shape));
    for (const Exchange exchange : {Exchange::ring, Exchange::direct, Exchange::hierarchical}) {
      entry.per_byte_s = std::min(entry.per_byte_s, transfer_seconds_per_byte(cluster, shape, exchange));
    }
  }
  return least;
}

TEST(LeastTransfer, EqualsTryingEveryGroup) {
  const CostModel cost = test::make_cost();
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    test::Random random(seed);
    Cluster cluster{.nodes = static_cast<int>(random.whole(1, 5))};
    cluster.ranks_per_node = static_cast<int>(random.whole(1, 12 / cluster.nodes));
    cluster.intra_node = {1 + 9 * random.unit(), random.unit(), static_cast<int>(random.whole(1, 5))};
    cluster.inter_node = {1 + (seed % 2 == 0 ? 99 : 9) * random.unit(), random.unit(), 1};
    for (int rank = 0; seed % 3 != 0 && rank < cluster.ranks(); ++rank) {
      cluster.rank_speed.push_back(random.whole(0, 3) == 0 ? 0.0 : 1.0);
    }
    if (cluster.live_ranks().empty()) continue;
    const std::vector<LeastTransfer> expected = least_of_all_groups(cluster, cost);
    const std::vector<LeastTransfer> actual = least_transfers(cluster, cost);
    ASSERT_EQ(actual.size(), expected.size());
    for (std::size_t degree = 2; degree < expected.size(); ++degree) {
      SCOPED_TRACE("degree " + std::to_string(degree));
      EXPECT_EQ(actual[degree].fixed_s, expected[degree].fixed_s);
      EXPECT_EQ(actual[degree].per_byte_s, expected[degree].per_byte_s);
    }
  }
}

TEST(LeastTransfer, WideGroupsAreNoQuicker) {
  // Too many groups to try: a random sample, even splits over nodes among it.
  const CostModel cost = test::make_cost();
  Cluster cluster = test::make_cluster(300, 8, 100);
  for (const double bandwidth : {500.0, 2e3, 1e6}) {
    cluster.inter_node.bandwidth_bytes_per_s = bandwidth;
    const std::vector<LeastTransfer> least = least_transfers(cluster, cost);
    for (std::uint64_t seed = 1; seed <= 300; ++seed) {
      SCOPED_TRACE("seed " + std::to_string(seed));
      test::Random random(seed);
      const int nodes = static_cast<int>(random.whole(1, 300));
      const int fewest = static_cast<int>(random.whole(1, 8));
      const int most = static_cast<int>(random.whole(fewest, 8));
      std::vector<Rank> ranks;
      for (int node = 0; node < nodes; ++node) {
        for (int k = 0; k < (node == 0 ? most : fewest); ++k) ranks.push_back(node * 8 + k);
      }
      if (ranks.size() < 2) continue;
      const GroupShape shape = shape_of(cluster, ranks);
      EXPECT_LE(least[ranks.size()].fixed_s, transfer_latency_s(cost, cluster, shape) * (1 + 1e-12));
      for (const Exchange exchange : {Exchange::ring, Exchange::direct, Exchange::hierarchical}) {
        EXPECT_LE(least[ranks.size()].per_byte_s, transfer_seconds_per_byte(cluster, shape, exchange) * (1 + 1e-12));
      }
    }
  }
}

TEST(TighterBound, EmptyBatchesAndDeadClusters) {
  Cluster cluster = test::make_cluster(1, 2, 100);
  EXPECT_EQ(tighter_lower_bound_s({}, cluster, test::make_cost()), 0.0);
  cluster.rank_speed = {0.0, 0.0};
  EXPECT_EQ(tighter_lower_bound_s(test::make_batch({5}), cluster, test::make_cost()),
            std::numeric_limits<double>::infinity());
}

TEST(TighterBound, OneSequenceTakesItsBestGroup) {
  // Exactly: nothing else is there.
  const Cluster cluster = test::make_cluster(2, 3, 1000);
  const CostModel cost = test::make_cost();
  for (const std::int64_t tokens : {10, 700, 2500, 5900}) {
    const Batch batch = test::make_batch({tokens});
    double best = std::numeric_limits<double>::infinity();
    for (int degree = min_degree(cost, cluster, batch.sequences[0]); degree <= 6; ++degree) {
      for (int first = 0; first + degree <= 6; ++first) {
        for (const Exchange exchange : {Exchange::ring, Exchange::direct, Exchange::hierarchical}) {
          best = std::min(best, task_seconds(cost, cluster, load_of(batch.sequences),
                                             consecutive_shape(cluster, first, degree), exchange));
        }
      }
    }
    const LowerBound bound = tighter_lower_bound(batch, cluster, cost);
    test::expect_relative(bound.seconds, best, 1e-9);
    EXPECT_EQ(bound.sequence, 0U);
  }
}

TEST(TighterBound, RanksRunSharesOfWholeSequences) {
  // No transfers, no cost of splitting: seconds are tokens. Three sequences on two ranks: one rank has a share of 1.5
  // or more, of tasks that take no less than their shares; area says the same.
  Cluster two = test::make_cluster(1, 2, 1000);
  two.intra_node.latency_s = 0.0;
  const CostModel plain{.name = "plain", .layers = 1, .forward = {.token_s = 1.0}, .token_bytes = 1.0};
  test::expect_relative(tighter_lower_bound_s(test::make_batch({100, 100, 100}), two, plain), 150.0, 1e-5);
  // With 30 s a task and rank: two tasks of 100 alone take 260, one of three on two ranks 150 + 30.
  CostModel tasks = plain;
  tasks.task_s = 30.0;
  test::expect_relative(tighter_lower_bound_s(test::make_batch({100, 100, 100}), two, tasks), 180.0, 1e-5);
  // Memory for two sequences a group: two tasks, of 100 and of 2 * 50; or of three halves in one, which do not fit.
  Cluster small = two;
  small.memory_bytes = 100.0;
  test::expect_relative(tighter_lower_bound_s(test::make_batch({100, 100, 100}), small, tasks), 210.0, 1e-5);
  // Longer sequences change nothing of what the shortest says, and the bound stays below the plan.
  const Batch uneven = test::make_batch({100, 120, 130});
  const double bound_s = tighter_lower_bound_s(uneven, small, tasks);
  EXPECT_GE(bound_s, 210.0 * (1 - 1e-5));
  EXPECT_LE(bound_s, test::plan_of(plan_batch(uneven, two, tasks, {})).predicted->makespan_s);
}

TEST(TighterBound, ExampleOfTheDocs) {  // docs/bounds.md, "An example": seconds are tokens
  Cluster cluster = test::make_cluster(1, 3, 350);
  cluster.intra_node.latency_s = 0.0;
  const CostModel cost{
      .name = "plain", .layers = 1, .task_s = 30.0, .forward = {.token_s = 1.0, .step_s = 10.0}, .token_bytes = 1.0};
  const Batch batch = test::make_batch({600, 100});
  test::expect_relative(simple_lower_bound_s(batch, cluster, cost), 820.0 / 3, 1e-12);
  const Problem problem(batch, cluster, cost);
  const std::vector<Lambda> zero(4, Lambda{});
  for (const auto& [parts, expected] : {std::pair{0, 600 + 60 * 600 / 350.0 / 3}, {1, 660.0}}) {
    double charge_of_three = 0.0;
    const Charges charges(problem, {.parts = parts}, zero);
    charges.visit_below(problem.items()[0], kInfinity, [&](int, double charge) { charge_of_three = charge; });
    test::expect_relative(charge_of_three, expected, 1e-12);
  }
  const Plan plan = test::plan_of(plan_batch(batch, cluster, cost, {.planner = "static:3", .tighter_bound = true}));
  test::expect_relative(plan.predicted->makespan_s, 880.0 / 3, 1e-12);
  test::expect_relative(plan.predicted->lower_bound_s, 880.0 / 3, 1e-5);
}

TEST(TighterBound, FramesTakeTurnsUnlessALargerOneFitsBeside) {
  const CostModel cost{.name = "vision", .layers = 1, .patch_s = 1.0, .token_bytes = 1.0};
  Cluster cluster = test::make_cluster(1, 4, 100);
  cluster.intra_node.latency_s = 0.0;
  const Batch clip{.sequences = {{0, 400, 50, 10}}};  // five frames of 10 s
  const Plan plan = test::plan_of(plan_batch(clip, cluster, cost, {.tighter_bound = true}));
  test::expect_relative(plan.predicted->makespan_s, 20.0, 1e-12);
  test::expect_relative(plan.predicted->lower_bound_s, 20.0, 1e-9);
  Batch both = clip;
  both.sequences.push_back({1, 10, 12, 12});  // a frame of 12 s
  for (const auto& [memory, expected_s] : {std::pair{100.0, 20.0}, {102.5, 12.5}}) {
    cluster.memory_bytes = memory;
    const Problem problem(both, cluster, cost);
    test::expect_relative(problem.alone_s(problem.items()[0], 4), expected_s, 1e-12);
  }
}

TEST(TighterBound, BelowEveryPlanOfTheSharedCases) {
  for (const char* data : {"openvid", "internvid", "lognormal", "burst", "uniform", "msrvtt"}) {
    SCOPED_TRACE(data);
    const Batch batch = read_batch(test::case_file(std::string("batch_") + data + "_512.json"));
    const CostModel cost = read_cost_model(test::case_file("cost_qwen3-vl-8b_4096.json"));
    Cluster cluster = read_cluster(test::case_file("cluster_910b_8x8_slow_network.json"));
    for (const char* planner : {"paper", "static"}) {
      const Plan plan = test::plan_of(plan_batch(batch, cluster, cost, {.planner = planner, .tighter_bound = true}));
      EXPECT_GE(plan.predicted->gap, 0.0);
      EXPECT_GT(plan.predicted->lower_bound_s, simple_lower_bound_s(batch, cluster, cost));
      test::expect_valid(plan, batch, cluster, cost);
    }
    const double sampled = tighter_lower_bound(batch, cluster, cost, 64).seconds;
    EXPECT_GE(sampled, simple_lower_bound_s(batch, cluster, cost));
    EXPECT_LE(sampled, tighter_lower_bound_s(batch, cluster, cost) * (1 + 1e-6));
    // Slower ranks can only take longer.
    const double nominal = tighter_lower_bound_s(batch, cluster, cost);
    cluster.rank_speed.assign(64, 1.0);
    EXPECT_EQ(tighter_lower_bound_s(batch, cluster, cost), nominal);
    cluster.rank_speed[7] = 0.5;
    EXPECT_GE(tighter_lower_bound_s(batch, cluster, cost), nominal * 0.999);
  }
}

/// Ranges of degrees that cannot hold the least charge are passed over: walking all degrees finds no other.
TEST(Charges, OfAllDegreesAreSeen) {
  const std::uint64_t first = test::first_seed(1);
  for (std::uint64_t seed = first; seed < first + test::share_of(300); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    test::Random random(seed);
    CostModel cost = test::make_cost();
    cost.forward.sequence_step_s = random.whole(0, 1) == 0 ? 0.0 : 1e-3 * random.unit();
    cost.patch_pair_s = random.whole(0, 1) == 0 ? 0.0 : 1e-4 * random.unit();
    const Cluster cluster = test::make_cluster(static_cast<int>(random.whole(1, 20)), 8, 100);
    Batch batch;
    for (std::int64_t id = 0; id < 20; ++id) {
      batch.sequences.push_back({id, random.whole(1, 500), 40, random.whole(0, 40)});
    }
    const Problem problem(batch, cluster, cost);
    std::vector<Lambda> lambdas(static_cast<std::size_t>(problem.ranks()) + 1);
    for (Lambda& lambda : lambdas) lambda = {random.unit(), random.whole(0, 1) == 0 ? 0.0 : 1.0};
    const Sharing sharing{.by_rank = random.whole(0, 1) == 0, .parts = static_cast<int>(random.whole(0, 2))};
    const Charges charges(problem, sharing, lambdas);
    for (const Item& item : problem.items()) {
      double least = kInfinity;
      int seen = 0;
      charges.visit_below(item, kInfinity, [&](int degree, double charge) {
        EXPECT_EQ(degree, item.least + seen++);
        least = std::min(least, charge);
      });
      EXPECT_EQ(seen, problem.ranks() - item.least + 1);
      double limit = kInfinity;
      charges.visit_below(item, limit, [&](int, double charge) { limit = charge; });
      EXPECT_EQ(limit, least);
    }
  }
}

}  // namespace
}  // namespace dhp::bound_test
