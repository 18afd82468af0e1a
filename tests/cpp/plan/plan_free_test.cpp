// The planners "free" and "lockstep": optimal on what exhaustive search can solve, every constraint kept, unequal ranks
// used as they should be, large clusters in cells.

#include <algorithm>
#include <limits>
#include <map>
#include <set>

#include "dhp/bound.h"
#include "exhaustive.h"
#include "plan_support.h"

namespace dhp::plan_free_test {
namespace {

using test::make_batch;
using test::make_cluster;
using test::make_cost;
using test::plan_of;

Cluster ascend(int nodes, int ranks_per_node) {
  Cluster cluster = read_cluster(test::case_file("cluster_910b_8x8.json"));
  cluster.nodes = nodes;
  cluster.ranks_per_node = ranks_per_node;
  return cluster;
}

CostModel qwen() { return read_cost_model(test::case_file("cost_qwen3-vl-8b_8192.json")); }

Batch equal_sequences(int count, std::int64_t tokens) {
  return make_batch(std::vector<std::int64_t>(static_cast<std::size_t>(count), tokens));
}

/// Against the optimum, which knows no errors of estimates.
PlanOptions without_errors(int min_shard_tokens = PlanOptions{}.min_shard_tokens) {
  return {.planner = "free", .min_shard_tokens = min_shard_tokens, .expect_error = ErrorSizes{0.0, 0.0, 0.0}};
}

double makespan(const Plan& plan) { return plan.predicted->makespan_s; }

/// Scaled-down twins of the batches that no bound measures well, equal sequences, one more or fewer than ranks: against
/// the best plan there is.
struct Twins {
  int cases = 0;
  int optimal = 0;
  double worst = 1.0;        ///< free over the best plan
  double least_gap = 1e300;  ///< the best plan over the tighter bound
  double most_gap = 0.0;
};

Twins search_twins(const std::vector<std::pair<int, int>>& nodes_and_ranks, int more) {
  const CostModel cost = qwen();
  Twins twins;
  for (const auto& [nodes, per_node] : nodes_and_ranks) {
    const Cluster cluster = ascend(nodes, per_node);
    for (const std::int64_t tokens : {1000, 4000, 8000}) {
      SCOPED_TRACE(testing::Message() << nodes << " x " << per_node << " ranks, " << tokens << " tokens, " << more);
      const Batch batch = equal_sequences(cluster.ranks() + more, tokens);
      const Plan plan = plan_of(plan_batch(batch, cluster, cost, without_errors()));
      const double best_s = test::ExhaustiveSearch(batch, cluster, cost).makespan_s();
      EXPECT_GE(makespan(plan), best_s * (1.0 - 1e-9));
      ++twins.cases;
      twins.optimal += makespan(plan) <= best_s * (1.0 + 1e-9) ? 1 : 0;
      twins.worst = std::max(twins.worst, makespan(plan) / best_s);
      const double gap = best_s / tighter_lower_bound_s(batch, cluster, cost);
      twins.least_gap = std::min(twins.least_gap, gap);
      twins.most_gap = std::max(twins.most_gap, gap);
    }
  }
  std::cout << std::showpos << more << std::noshowpos << ": free optimal in " << twins.optimal << " of " << twins.cases
            << ", worst " << twins.worst << "; optimum over tighter bound " << twins.least_gap << " to "
            << twins.most_gap << '\n';
  return twins;
}

TEST(PlanFree, OptimalOnOneSequenceMoreOrFewerThanRanks) {
  for (const int more : {1, -1}) {
    const Twins twins = search_twins({{1, 2}, {1, 3}, {1, 4}, {2, 2}, {3, 1}, {4, 1}}, more);
    EXPECT_EQ(twins.optimal, twins.cases);
    EXPECT_LE(twins.most_gap, 1.0 + 1e-5);  // the bound knows that shares are whole
  }
}

/// With five and six ranks the search misses two rounds of groups of two and three ranks where four ranks of five take
/// one sequence each, and groups that share two sequences. What it reaches is a regression guard.
TEST(PlanFree, NearOptimumOnOneSequenceMoreOrFewerThanFiveOrSixRanks) {
  for (const int more : {1, -1}) {
    const Twins twins = search_twins({{1, 5}, {5, 1}, {1, 6}, {2, 3}, {3, 2}, {6, 1}}, more);
    EXPECT_GE(twins.optimal, more > 0 ? 17 : 16);
    EXPECT_LE(twins.worst, more > 0 ? 1.0035 : 1.06);
    EXPECT_LE(twins.most_gap, 1.012);
  }
}

/// How far from the optimum on random small batches; the mean is a regression guard with room, the floor is exact.
TEST(PlanFree, NearOptimumOnRandomSmallBatches) {
  constexpr std::uint64_t kSeed = 4;
  test::Random random(kSeed);
  double sum = 0.0;
  double worst = 0.0;
  int count = 0;
  for (int round = 0; round < 150; ++round) {
    SCOPED_TRACE("seed " + std::to_string(kSeed) + ", round " + std::to_string(round));
    const Cluster cluster =
        make_cluster(static_cast<int>(random.whole(1, 2)), static_cast<int>(random.whole(1, 2)), 256);
    std::vector<std::int64_t> tokens;
    for (std::int64_t left = random.whole(1, 5); left > 0; --left) tokens.push_back(random.whole(20, 250));
    const Batch batch = make_batch(tokens);
    const CostModel cost = make_cost();
    const double best = test::ExhaustiveSearch(batch, cluster, cost).makespan_s();
    const Plan plan = plan_of(plan_batch(batch, cluster, cost, without_errors(1)));
    test::expect_valid(plan, batch, cluster, cost);
    const double ratio = makespan(plan) / best;
    EXPECT_GE(ratio, 1.0 - 1e-9);
    sum += ratio;
    worst = std::max(worst, ratio);
    ++count;
  }
  std::cout << "makespan over optimum: mean " << sum / count << ", worst " << worst << '\n';
  EXPECT_LT(sum / count, 1.03);
}

TEST(PlanFree, GroupsOfSeveralWhereMemoryIsTight) {
  // Four ranks of 512 tokens, as in the demo: lockstep, which lets sequences share a group, was up to 5 % ahead.
  const CostModel cost{.name = "small",
                       .layers = 4,
                       .task_s = 0.005,
                       .patch_s = 3.5e-5,
                       .patch_pair_s = 1.4e-7,
                       .forward = {.token_s = 2.9e-5, .pair_s = 8e-8, .step_s = 8e-4},
                       .backward = {.token_s = 5.8e-5, .pair_s = 2e-7, .step_s = 8e-4},
                       .token_bytes = 1.0};
  const Cluster cluster = make_cluster(1, 4, 512);
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    test::Random random(seed);
    Batch batch;
    for (int id = 0; id < 16; ++id) {
      const std::int64_t frame = 16 * random.whole(1, 70);
      const std::int64_t frames = random.whole(0, 3) == 0 ? random.whole(2, 5) : random.whole(0, 1);
      batch.sequences.push_back({id, random.whole(30, 80) + frame * frames / 4, frame * frames, frame});
      if (frames == 0) batch.sequences.back().frame_patches = 0;
    }
    const double lockstep_s = makespan(plan_of(plan_batch(batch, cluster, cost, {.planner = "lockstep"})));
    EXPECT_LE(makespan(plan_of(plan_batch(batch, cluster, cost, without_errors()))), 1.002 * lockstep_s);
  }
}

TEST(PlanFree, EmptyAndOne) {
  for (const char* planner : {"free", "lockstep"}) {
    const Plan empty = plan_of(plan_batch({}, ascend(2, 4), qwen(), {.planner = planner}));
    EXPECT_TRUE(empty.tasks.empty());
    const Batch one = make_batch({20000});
    const Plan plan = plan_of(plan_batch(one, ascend(2, 4), qwen(), {.planner = planner}));
    ASSERT_EQ(plan.tasks.size(), 1U);
    EXPECT_LE(makespan(plan), 1.02 * tighter_lower_bound_s(one, ascend(2, 4), qwen()));
  }
}

TEST(PlanFree, DoesNotDependOnTheOrderOfTheBatch) {
  const Batch batch = read_batch(test::case_file("batch_openvid_512.json"));
  Batch reversed = batch;
  std::reverse(reversed.sequences.begin(), reversed.sequences.end());
  for (const char* planner : {"free", "lockstep"}) {
    const PlanOptions options{.planner = planner, .effort = kEffortFast};
    const Plan plan = plan_of(plan_batch(batch, ascend(8, 8), qwen(), options));
    EXPECT_EQ(plan.tasks, plan_of(plan_batch(reversed, ascend(8, 8), qwen(), options)).tasks);
  }
}

TEST(PlanFree, SlowRanksGetLessAndDeadOnesNothing) {
  Cluster cluster = ascend(4, 8);
  cluster.rank_speed.assign(32, 1.0);
  cluster.rank_speed[3] = 0.5;
  for (const Rank dead : {9, 10, 31}) cluster.rank_speed[static_cast<std::size_t>(dead)] = 0.0;
  const Batch batch = read_batch(test::case_file("batch_openvid_512.json"));
  for (const char* planner : {"free", "lockstep"}) {
    SCOPED_TRACE(planner);
    const Plan plan = plan_of(plan_batch(batch, cluster, qwen(), {.planner = planner}));
    test::expect_valid(plan, batch, cluster, qwen());
    EXPECT_LT(plan.predicted->gap, 0.06);
    std::vector<double> nominal_s(32, 0.0);  // work done, at nominal speed
    for (const Task& task : plan.tasks) {
      for (const Rank rank : task.ranks) {
        ASSERT_GT(cluster.speed_of(rank), 0.0);
        nominal_s[static_cast<std::size_t>(rank)] += (*task.end_s - *task.start_s) * cluster.speed_of(rank);
      }
    }
    EXPECT_LT(nominal_s[3], 0.6 * nominal_s[0]);
  }
  cluster.rank_speed.assign(32, 0.0);
  EXPECT_EQ(test::infeasible_of(plan_batch(batch, cluster, qwen(), {})).reason, "no rank is in service");
}

/// As they are learned in training. More than 512 ranks are not looked at one by one.
TEST(PlanFree, RanksOfAllSpeedsAreAsLevelAsRanksOfFew) {
  test::Random random(3);
  std::vector<std::int64_t> lengths;
  for (int i = 0; i < 5 * 640; ++i) lengths.push_back(1 << random.whole(8, 13));
  const Batch batch = make_batch(lengths);
  for (const char* planner : {"free", "lockstep"}) {
    SCOPED_TRACE(planner);
    double gaps[2] = {};
    for (const bool all : {false, true}) {
      Cluster cluster = ascend(80, 8);
      for (int rank = 0; rank < cluster.ranks(); ++rank) {
        const std::int64_t thousandths = rank % 97 == 0 ? 600 : random.whole(950, 1000);
        cluster.rank_speed.push_back(static_cast<double>(all ? thousandths : thousandths / 10 * 10) / 1000);
      }
      const Plan plan = plan_of(plan_batch(batch, cluster, qwen(), {.planner = planner, .effort = kEffortFast}));
      test::expect_valid(plan, batch, cluster, qwen());
      gaps[all ? 1 : 0] = plan.predicted->gap;
    }
    EXPECT_LT(gaps[1], gaps[0] + 0.005);
  }
}

/// Every constraint, alone and together, on a batch that needs wide groups.
TEST(PlanFree, KeepsItsOptions) {
  const Batch batch = read_batch(test::case_file("batch_internvid_512.json"));
  const CostModel cost = read_cost_model(test::case_file("cost_qwen3-vl-8b_16384.json"));  // at most 8 ranks needed
  const std::vector<PlanOptions> all = {
      {.max_degree = 9},
      {.degrees_divide = {32, 8}},
      {.max_tokens_per_rank = 15000},
      {.min_shard_tokens = 3000},
      {.max_peers = 15},
      {.within_node = true},
      {.placement = Placement::consecutive},
      {.exchanges = {Exchange::ring}},
      {.max_degree = 12, .max_peers = 11, .placement = Placement::consecutive, .exchanges = {Exchange::direct}}};
  for (const char* planner : {"free", "lockstep"}) {
    for (std::size_t i = 0; i < all.size(); ++i) {
      SCOPED_TRACE(testing::Message() << planner << ", options " << i);
      PlanOptions options = all[i];
      options.planner = planner;
      options.effort = kEffortFast;
      const Plan plan = plan_of(plan_batch(batch, ascend(8, 8), cost, options));
      test::expect_valid(plan, batch, ascend(8, 8), cost);
      for (const std::string& broken : check_options(plan, batch, ascend(8, 8), cost, options)) ADD_FAILURE() << broken;
    }
  }
}

TEST(PlanFree, LargeClustersGoInCells) {
  const Batch base = read_batch(test::case_file("batch_burst_512.json"));
  Batch batch;
  for (int copy = 0; copy < 6; ++copy) {
    for (const Sequence& sequence : base.sequences) {
      batch.sequences.push_back({std::ssize(batch.sequences), sequence.tokens, sequence.patches});
    }
  }
  batch.sequences.push_back({std::ssize(batch.sequences), 2'000'000, 0});  // wants more ranks than a cell has
  const Cluster cluster = ascend(50, 8);
  const Plan plan = plan_of(plan_batch(batch, cluster, qwen(), {}));
  test::expect_valid(plan, batch, cluster, qwen());
  const auto widest = std::max_element(plan.tasks.begin(), plan.tasks.end(),
                                       [](const Task& a, const Task& b) { return a.degree() < b.degree(); });
  EXPECT_GT(widest->degree(), 128);
  EXPECT_LT(plan.predicted->gap, 0.2);
}

TEST(PlanLockstep, NoIdleRanks) {
  const Batch batch = read_batch(test::case_file("batch_openvid_512.json"));
  const PlanOptions busy{.planner = "lockstep", .no_idle_ranks = true};
  const Plan plan = plan_of(plan_batch(batch, ascend(8, 8), qwen(), busy));
  test::expect_valid(plan, batch, ascend(8, 8), qwen());
  for (const std::string& broken : check_options(plan, batch, ascend(8, 8), qwen(), busy)) ADD_FAILURE() << broken;
  // One short sequence cannot keep 64 ranks busy.
  const auto answer = test::infeasible_of(plan_batch(make_batch({100}), ascend(8, 8), qwen(), busy));
  EXPECT_NE(answer.reason.find("keep only 1 of 64 ranks busy"), std::string::npos) << answer.reason;
}

/// What a pipeline of `stages` minimises, from the plan alone: all micro-batches, and the slowest once more a further
/// stage.
double pipeline_seconds(const Plan& plan, int stages) {
  std::map<int, double> seconds;
  for (const Task& task : plan.tasks) {
    double& slowest = seconds[task.micro_batch];
    slowest = std::max(slowest, *task.end_s - *task.start_s);
  }
  double sum = 0.0;
  double most = 0.0;
  for (const auto& [micro_batch, slowest] : seconds) {
    sum += slowest;
    most = std::max(most, slowest);
  }
  return sum + (stages - 1) * most;
}

TEST(PlanLockstep, PipelinesTradeTheSumForTheSlowest) {
  for (const char* data : {"openvid", "burst", "msrvtt"}) {
    SCOPED_TRACE(data);
    const Batch batch = read_batch(test::case_file(std::string("batch_") + data + "_512.json"));
    const auto planned = [&](const PlanOptions& options) { return plan_batch(batch, ascend(8, 8), qwen(), options); };
    // The sum comes first where there is no pipeline; caps on tokens make micro-batches shorter, too, by other means.
    std::vector<Plan> others = {plan_of(planned({.planner = "lockstep"})), plan_of(planned({.planner = "paper"}))};
    for (const std::int64_t cap : {1000, 1500, 2500, 3500}) {
      const PlanResult capped = planned({.planner = "lockstep", .max_tokens_per_rank = cap});
      if (const Plan* plan = std::get_if<Plan>(&capped)) others.push_back(*plan);
    }
    for (const int stages : {2, 8, 64}) {
      SCOPED_TRACE(stages);
      const Plan plan = plan_of(planned({.planner = "lockstep", .pipeline_stages = stages}));
      test::expect_valid(plan, batch, ascend(8, 8), qwen());
      double best = std::numeric_limits<double>::infinity();
      for (const Plan& other : others) best = std::min(best, pipeline_seconds(other, stages));
      EXPECT_LE(pipeline_seconds(plan, stages), 1.01 * best);
      if (stages == 2) continue;
      EXPECT_LE(pipeline_seconds(plan, stages), 0.75 * pipeline_seconds(others[0], stages));
    }
  }
}

}  // namespace
}  // namespace dhp::plan_free_test
