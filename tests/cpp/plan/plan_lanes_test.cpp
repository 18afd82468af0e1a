// Plans of lanes: valid whatever the options, whole lanes where shards may be so short, and chosen where errors ask for
// them.
#include <algorithm>
#include <iostream>
#include <set>

#include "dhp/analytic_cost.h"
#include "dhp/metrics.h"
#include "dhp/workload.h"
#include "option_rules.h"
#include "plan/free/by_search.h"
#include "plan/search/lanes.h"
#include "plan_support.h"
#include "random_case.h"

namespace dhp::plan {
namespace {

constexpr Exchange kExchanges[] = {Exchange::ring, Exchange::direct, Exchange::hierarchical};

std::optional<Plan> search(const Batch& batch, const Limits& limits, const PlanOptions&) {
  return plan_by_search(batch, limits, 20'000).plan;
}

/// Plans of every width that the case leaves room for.
std::vector<std::pair<int, Plan>> lanes_of(const test::Case& made) {
  const Limits limits(made.cluster, made.cost, made.options, kExchanges);
  std::vector<std::pair<int, Plan>> plans;
  if (made.batch.sequences.empty() || limits.find_infeasible(made.batch)) return plans;
  Batch sorted = made.batch;
  std::sort(sorted.sequences.begin(), sorted.sequences.end(),
            [](const Sequence& a, const Sequence& b) { return a.id < b.id; });
  for (const int width : lane_widths(limits, made.options)) {
    std::optional<Plan> plan = plan_lanes(sorted, limits, made.options, width, search);
    if (!plan) continue;
    plan->planner = "free";
    plans.emplace_back(width, std::move(*plan));
  }
  return plans;
}

TEST(Lanes, AreValidOnRandomCases) {
  const std::uint64_t first = test::first_seed(1);
  std::cout << "from seed " << first << " on\n";
  std::set<std::string> seen;
  for (std::uint64_t seed = first; seed < first + test::share_of(4000); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    test::Case made = test::random_case(seed, "free");
    // More room for lanes than random cases have.
    if (seed % 2 == 0) made.options.max_degree = 0;
    if (seed % 3 == 0) made.options.degrees_divide.clear();
    for (const auto& [width, plan] : lanes_of(made)) {
      EXPECT_EQ(check_plan(plan, made.batch, made.cluster, made.cost), std::vector<std::string>());
      EXPECT_EQ(check_options(plan, made.batch, made.cluster, made.cost, made.options), std::vector<std::string>());
      for (const test::BrokenOption& broken : test::broken_options(plan, made)) {
        ADD_FAILURE() << broken.option << ": " << broken.detail;
      }
      const auto is_narrow = [w = width](const Task& task) { return task.degree() % w != 0; };
      if (std::any_of(plan.tasks.begin(), plan.tasks.end(), is_narrow)) seen.insert("short sequences");
      if (width == 2) seen.insert("pairs");
      if (width == made.cluster.ranks_per_node) seen.insert("nodes");
      if (made.options.max_peers > 0) seen.insert("max_peers");
      if (made.options.within_node) seen.insert("within_node");
      if (made.options.max_degree > 0) seen.insert("max_degree");
      if (!made.options.degrees_divide.empty()) seen.insert("degrees_divide");
      if (made.options.max_tokens_per_rank > 0) seen.insert("max_tokens_per_rank");
      if (made.options.placement == Placement::consecutive) seen.insert("consecutive");
      if (!made.cluster.rank_speed.empty()) seen.insert("speeds");
      if (std::ssize(made.cluster.live_ranks()) < made.cluster.ranks()) seen.insert("out of service");
    }
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GE(seen.size(), test::share_of(11) == 11 ? 11U : 1U);  // of the words above
}

TEST(Lanes, RunOnWholeBlocksOfRanks) {
  const Cluster cluster = test::make_cluster(2, 4, 1e6);
  const CostModel cost = test::make_cost();
  Batch batch;
  test::Random random(3);
  for (int i = 0; i < 60; ++i) batch.sequences.push_back({i, random.whole(600, 5000), 0});
  const PlanOptions options;
  const Limits limits(cluster, cost, options, kExchanges);
  EXPECT_EQ(lane_widths(limits, options), (std::vector{2, 4}));
  for (const int width : {2, 4}) {
    const std::optional<Plan> plan = plan_lanes(batch, limits, options, width, search);
    ASSERT_TRUE(plan);
    test::expect_valid(*plan, batch, cluster, cost);
    for (const Task& task : plan->tasks) {
      std::set<int> blocks;
      for (const Rank rank : task.ranks) blocks.insert(rank / width);
      EXPECT_EQ(std::ssize(blocks) * width, task.degree());
    }
  }
}

TEST(Lanes, WidthsKeepToTheOptions) {
  const CostModel cost = test::make_cost();
  const auto widths = [&](int nodes, int per_node, const PlanOptions& options) {
    const Cluster cluster = test::make_cluster(nodes, per_node, 1e6);
    return lane_widths(Limits(cluster, cost, options, kExchanges), options);
  };
  EXPECT_EQ(widths(8, 8, {}), (std::vector{2, 4, 8}));
  EXPECT_EQ(widths(2, 1, {}), std::vector<int>());
  EXPECT_EQ(widths(3, 6, {}), (std::vector{2, 6}));
  EXPECT_EQ(widths(4, 16, {}), (std::vector{2, 4, 8, 16}));
  EXPECT_EQ(widths(25, 8, {}), (std::vector{4, 8}));  // many ranks
  EXPECT_EQ(widths(65, 8, {}), (std::vector{8}));
  EXPECT_EQ(widths(8, 8, {.max_degree = 5}), (std::vector{2, 4}));
  EXPECT_EQ(widths(8, 8, {.degrees_divide = {32, 4}}), (std::vector{2, 4}));
  EXPECT_EQ(widths(8, 8, {.max_peers = 3}), (std::vector{2, 4}));
  EXPECT_EQ(widths(8, 8, {.max_peers = 5}), (std::vector{2}));
  EXPECT_EQ(widths(8, 8, {.max_peers = 4}), std::vector<int>());
}

TEST(Lanes, PutRanksOfLikeSpeedTogether) {
  Cluster cluster = test::make_cluster(1, 4, 1e6);
  cluster.rank_speed = {1.0, 0.5, 1.0, 0.5};
  const CostModel cost = test::make_cost();
  const Batch batch = test::make_batch({4000, 4000, 4000, 4000, 4000, 4000});
  PlanOptions options;
  const auto groups = [&] {
    std::set<std::vector<Rank>> used;
    const std::optional<Plan> plan = plan_lanes(batch, Limits(cluster, cost, options, kExchanges), options, 2, search);
    if (plan) {
      for (const Task& task : plan->tasks) used.insert(task.ranks);
    }
    return used;
  };
  EXPECT_EQ(groups(), (std::set<std::vector<Rank>>{{0, 2}, {1, 3}}));
  options.placement = Placement::consecutive;
  EXPECT_EQ(groups(), (std::set<std::vector<Rank>>{{0, 1}, {2, 3}}));
  cluster.rank_speed = {1.0, 0.0, 1.0, 0.0};
  EXPECT_EQ(groups(), std::set<std::vector<Rank>>());  // no two neighbours in service
  options.placement = Placement::any;
  EXPECT_EQ(groups(), (std::set<std::vector<Rank>>{{0, 2}}));
}

/// Long sequences on two nodes, where plans of every width take about as long.
struct Ample {
  Cluster cluster = read_cluster("a100-2x8");
  CostModel cost = read_cost_model("internvl3-8b@a100", cluster);
  Batch batch;

  Ample() {
    test::Random random(11);
    for (int i = 0; i < 128; ++i) batch.sequences.push_back({i, random.whole(2000, 40'000), 0});
  }
  Plan plan(std::optional<ErrorSizes> errors, double most_loss) const {
    return test::plan_of(plan_batch(batch, cluster, cost, {.expect_error = errors, .most_loss = most_loss}));
  }
};
constexpr ErrorSizes kNone{0.0, 0.0, 0.0};
constexpr ErrorSizes kBySequence{0.1, 0.0, 0.0};
constexpr ErrorSizes kByRank{0.0, 0.0, 0.1};

/// Mean makespan under errors, by other draws than the planner's.
double expected_s(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost,
                  const ErrorSizes& errors) {
  double sum = 0.0;
  for (const double s : noisy_makespans(plan, batch, cluster, cost, errors, 200, 5)) sum += s / 200;
  return sum;
}

/// That of a planner which is told the errors, whatever its plan loses without them.
double expected_when_told_s(const std::string& planner, const Batch& batch, const Cluster& cluster,
                            const CostModel& cost, const ErrorSizes& errors) {
  const PlanOptions options{.planner = planner, .expect_error = errors, .most_loss = 1.0};
  return expected_s(test::plan_of(plan_batch(batch, cluster, cost, options)), batch, cluster, cost, errors);
}

TEST(ExpectError, DecidesHowWidePlansAre) {
  const Ample ample;
  const auto mean_s = [&](const Plan& plan, const ErrorSizes& errors) {
    return expected_s(plan, ample.batch, ample.cluster, ample.cost, errors);
  };
  const Plan shortest = ample.plan(kNone, 0.5);
  const Plan wide = ample.plan(kBySequence, 0.5);
  const Plan narrow = ample.plan(kByRank, 0.5);
  EXPECT_LE(shortest.predicted->makespan_s, std::min(wide.predicted->makespan_s, narrow.predicted->makespan_s));
  EXPECT_LT(mean_s(wide, kBySequence), mean_s(narrow, kBySequence));
  EXPECT_LT(mean_s(narrow, kByRank), mean_s(wide, kByRank));
  for (const double most_loss : {0.0, 0.002, 0.006}) {
    EXPECT_LE(ample.plan(kBySequence, most_loss).predicted->makespan_s,
              shortest.predicted->makespan_s * (1 + most_loss) * (1 + 1e-9));
  }
}

/// Whatever `free` is told, a plan of lockstep is among those that it chooses from, so that none is ahead of it.
TEST(ExpectError, IsNoReasonToFallBehindLockstep) {
  constexpr ErrorSizes kByTask{0.0, 0.1, 0.0};
  const Cluster cluster = read_cluster("a100-2x8");
  const CostModel cost = read_cost_model("qwen3-vl-8b@a100", read_cluster("a100-8x8"));  // state on 64 ranks
  const TokenRules rules = token_rules(Family::qwen3_vl, MediaSampling::qwen_vl_utils);
  for (const std::uint64_t seed : {1, 2, 3, 4, 5, 6}) {
    const Batch batch = make_batch(rules, draw_samples("openvid", 128, seed));
    const auto told_s = [&](const char* planner) {
      return expected_when_told_s(planner, batch, cluster, cost, kByTask);
    };
    EXPECT_LE(told_s("free"), told_s("lockstep") * 1.01) << "seed " << seed;
  }
}

/// Memory is tight, and 4 of 512 sequences are long: groups of 16 ranks that begin at once wait less for slow ranks
/// than those that fit the work best.
TEST(ExpectError, OfLargeErrorsIsWorthMorePlans) {
  const Batch batch = read_batch(test::case_file("batch_burst_512.json"));
  const Cluster cluster = read_cluster(test::case_file("cluster_910b_8x8.json"));
  const CostModel cost = read_cost_model(test::case_file("cost_qwen3-vl-8b_16384.json"));
  const auto told_s = [&](const char* planner) { return expected_when_told_s(planner, batch, cluster, cost, kByRank); };
  EXPECT_LT(told_s("free"), told_s("megatron-hybrid"));  // 1.4 % more without them
}

TEST(ExpectError, IsThatOfTheCostUnlessTheOptionIsSet) {
  Ample ample;
  const auto hash = [&](std::optional<ErrorSizes> of_cost, std::optional<ErrorSizes> of_option) {
    ample.cost.expected_error = of_cost;
    return ample.plan(of_option, 0.5).hash;
  };
  EXPECT_NE(hash({}, kBySequence), hash({}, kByRank));
  EXPECT_EQ(hash(kBySequence, {}), hash({}, kBySequence));
  EXPECT_EQ(hash(kByRank, {}), hash({}, kByRank));
  EXPECT_EQ(hash(kBySequence, kByRank), hash({}, kByRank));
  EXPECT_EQ(hash({}, {}), hash({}, ErrorSizes{}));
}

}  // namespace
}  // namespace dhp::plan
