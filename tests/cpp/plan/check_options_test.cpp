// Options of every planner: plans keep them, or the answer is Infeasible for a reason that a second look confirms.

#include <algorithm>
#include <limits>
#include <map>

#include "plan_support.h"

namespace dhp::check_options_test {
namespace {

using test::make_batch;
using test::make_cluster;
using test::plan_of;

CostModel cost_with_heads() {
  CostModel cost = test::make_cost();
  cost.query_heads = 12;
  cost.forward.all_to_all_bytes_per_token = 12.0;
  cost.backward.all_to_all_bytes_per_token = 24.0;
  return cost;
}

struct Case {
  Batch batch;
  Cluster cluster;
  PlanOptions options;
};

Batch random_batch(test::Random& random) {
  Batch batch;
  const auto sequences = random.whole(1, 40);
  const std::int64_t longest = random.whole(0, 1) == 0 ? 1200 : 3000;
  for (std::int64_t i = 0; i < sequences; ++i) {
    const std::int64_t tokens = random.whole(0, 4) == 0 ? random.whole(1, longest) : random.whole(1, 200);
    batch.sequences.push_back({500 - i * 3, tokens, random.whole(0, 2) == 0 ? random.whole(0, 2 * tokens) : 0});
  }
  return batch;
}

Cluster random_cluster(test::Random& random) {
  Cluster cluster = make_cluster(static_cast<int>(random.whole(1, 4)), static_cast<int>(random.whole(1, 6)), 512);
  if (random.whole(0, 1) == 0) {
    for (int rank = 0; rank < cluster.ranks(); ++rank) {
      const auto kind = random.whole(0, 7);
      cluster.rank_speed.push_back(kind == 0 ? 0.0 : kind == 1 ? 0.5 : 1.0);
    }
  }
  return cluster;
}

/// A third of all options is set.
PlanOptions random_options(test::Random& random) {
  PlanOptions options;
  const auto chance = [&] { return random.whole(0, 2) == 0; };
  if (chance()) options.max_degree = static_cast<int>(random.whole(1, 8));
  if (chance()) options.degrees_divide = {random.whole(0, 1) == 0 ? 8 : 12};
  if (chance()) options.max_tokens_per_rank = random.whole(100, 600);
  if (chance()) options.min_shard_tokens = static_cast<int>(random.whole(1, 100));
  if (chance()) options.max_peers = static_cast<int>(random.whole(1, 8));
  if (chance()) options.within_node = true;
  if (chance()) options.placement = Placement::consecutive;
  if (chance()) options.exchanges = {Exchange::direct, Exchange::hierarchical};
  if (chance()) options.no_idle_ranks = true;
  return options;
}

/// The most consecutive ranks in service, on one node if groups must stay there.
int longest_run(const Cluster& cluster, bool within_node) {
  std::map<int, int> on_node;
  int all = 0;
  int most = 0;
  for (Rank rank = 0; rank < cluster.ranks(); ++rank) {
    if (cluster.speed_of(rank) == 0.0) continue;
    ++all;
    most = std::max(most, ++on_node[rank / cluster.ranks_per_node]);
  }
  return within_node ? most : all;
}

bool allowed(const PlanOptions& options, const Cluster& cluster, int degree) {
  if (degree > longest_run(cluster, options.within_node)) return false;
  if (options.max_degree > 0 && degree > options.max_degree) return false;
  if (options.max_peers > 0 && degree > options.max_peers + 1) return false;
  return std::all_of(options.degrees_divide.begin(), options.degrees_divide.end(),
                     [&](int number) { return number % degree == 0; });
}

bool holds(const Case& one, const CostModel& cost, const Sequence& sequence, int degree) {
  const double bytes = static_cast<double>(sequence.tokens) * cost.token_bytes +
                       static_cast<double>(sequence.patches) * cost.patch_bytes;
  const std::int64_t cap = one.options.max_tokens_per_rank;
  return bytes / degree <= one.cluster.memory_bytes - cost.state_bytes && (cap == 0 || sequence.tokens <= cap * degree);
}

/// Whether a sequence has no degree of its own, and whether no one degree holds all of them.
bool some_sequence_fits_nowhere(const Case& one, const CostModel& cost) {
  return std::any_of(one.batch.sequences.begin(), one.batch.sequences.end(), [&](const Sequence& sequence) {
    for (int degree = 1; degree <= one.cluster.ranks(); ++degree) {
      if (allowed(one.options, one.cluster, degree) && holds(one, cost, sequence, degree)) return false;
    }
    return true;
  });
}
bool no_degree_for_all(const Case& one, const CostModel& cost, bool ulysses) {
  for (int degree = 1; degree <= one.cluster.ranks(); ++degree) {
    if (one.cluster.ranks() % degree != 0 || !allowed(one.options, one.cluster, degree)) continue;
    if (ulysses && degree > 1 && (cost.query_heads % degree != 0 || !one.options.exchanges.empty())) continue;
    if (std::all_of(one.batch.sequences.begin(), one.batch.sequences.end(),
                    [&](const Sequence& sequence) { return holds(one, cost, sequence, degree); })) {
      return false;
    }
  }
  return true;
}

void expect_true_reason(const Case& one, const CostModel& cost, const PlanResult& result) {
  const std::string& name = one.options.planner;
  const auto* answer = std::get_if<Infeasible>(&result);
  EXPECT_FALSE(answer != nullptr && answer->reason.empty());
  const bool nowhere = some_sequence_fits_nowhere(one, cost);
  if (nowhere) {
    EXPECT_NE(answer, nullptr);
  } else if (name == "paper") {
    // Whether idle ranks could be avoided is not known here.
    EXPECT_TRUE(answer == nullptr || one.options.no_idle_ranks) << answer->reason;
  } else if (!name.starts_with("megatron")) {
    EXPECT_EQ(answer != nullptr, no_degree_for_all(one, cost, name == "ulysses"));
  } else if (answer != nullptr) {
    const auto says = [&](const char* words) { return answer->reason.find(words) != std::string::npos; };
    const int live = longest_run(one.cluster, false);
    if (says("asserts an even number")) {
      EXPECT_EQ(live % 2, 1);
    } else if (says("spans nodes")) {
      EXPECT_TRUE(one.options.within_node);
    } else if (says("leaves ranks idle")) {
      EXPECT_TRUE(one.options.no_idle_ranks);
    } else if (says(" peers")) {
      EXPECT_GT(one.options.max_peers, 0);
    } else if (says("fill rule raises") || says("no communicator") || says("lookup of groups raises")) {
      EXPECT_NE(live & (live - 1), 0) << answer->reason;
    } else {
      EXPECT_TRUE(says("asserts")) << answer->reason;
    }
  }
}

TEST(PlanOptions, KeptByEveryPlanner) {
  constexpr std::uint64_t kSeed = 31;
  test::Random random(kSeed);
  const CostModel cost = cost_with_heads();
  std::map<std::string, int> planned;
  for (int round = 0; round < 600; ++round) {
    Case one{random_batch(random), random_cluster(random), random_options(random)};
    for (const char* planner :
         {"paper", "static", "balanced-static", "ulysses", "megatron-hybrid", "megatron-dynamic"}) {
      SCOPED_TRACE("seed " + std::to_string(kSeed) + ", round " + std::to_string(round) + ", " + planner);
      one.options.planner = planner;
      const PlanResult result = plan_batch(one.batch, one.cluster, cost, one.options);
      expect_true_reason(one, cost, result);
      if (const auto* plan = std::get_if<Plan>(&result)) {
        ++planned[planner];
        test::expect_valid(*plan, one.batch, one.cluster, cost);
        for (const std::string& violation : check_options(*plan, one.batch, one.cluster, cost, one.options)) {
          ADD_FAILURE() << violation;
        }
      }
      if (testing::Test::HasFailure()) return;
    }
  }
  EXPECT_EQ(planned.size(), 6U);
  for (const auto& [planner, plans] : planned) EXPECT_GT(plans, 60) << planner;
}

/// What check_options says of one plan of a 2 x 4 cluster, rank 3 out of service.
struct Told {
  std::vector<Task> tasks;
  PlanOptions options = {};
  Schedule schedule = Schedule::lockstep;
};
std::vector<std::string> told(const Told& told) {
  Cluster cluster = make_cluster(2, 4, 512);
  cluster.rank_speed = {1, 1, 1, 0, 1, 1, 1, 1};
  Plan plan;
  plan.schedule = told.schedule;
  plan.ranks = 8;
  plan.tasks = told.tasks;
  return check_options(plan, make_batch({200, 300, 1100}), cluster, cost_with_heads(), told.options);
}

using Lines = std::vector<std::string>;

TEST(CheckOptions, NamesWhatIsBroken) {
  EXPECT_EQ(told({{{0, {0, 1, 2}, {0, 1}}}}), Lines{});
  EXPECT_EQ(told({{{0, {0, 1, 2}, {0, 1}}}, {.max_degree = 2}}),
            Lines{"tasks[0] has 3 ranks, more than the 2 of max_degree"});
  EXPECT_EQ(told({{{0, {0, 1, 2}, {0, 1}}}, {.degrees_divide = {12, 8}}}),
            Lines{"tasks[0] has 3 ranks, which do not divide 8 (degrees_divide)"});
  EXPECT_EQ(told({{{0, {0, 1}, {0, 1}}}, {.max_tokens_per_rank = 249}}),
            Lines{"tasks[0] has 500 tokens on 2 ranks, beyond max_tokens_per_rank 249"});
  EXPECT_EQ(told({{{0, {0, 1}, {0, 1}}}, {.max_tokens_per_rank = 250}}), Lines{});
  EXPECT_EQ(told({{{0, {2, 3}, {1}}}}), Lines{"tasks[0] has rank 3, which is out of service"});
  EXPECT_EQ(told({{{0, {2, 4}, {1}}}, {.within_node = true}}), Lines{"tasks[0] spans nodes, against within_node"});
  EXPECT_EQ(told({{{0, {2, 4}, {1}, 0, Exchange::direct}}, {.exchanges = {Exchange::ring}}}),
            Lines{"tasks[0] uses the exchange direct, which is not among those allowed"});
  EXPECT_EQ(told({{{0, {2}, {1}, 0, Exchange::direct}}, {.exchanges = {Exchange::ring}}}), Lines{});
}

TEST(CheckOptions, Shards) {
  const std::string line = "tasks[0] cuts the 200 tokens of sequence 0 over 3 ranks, below min_shard_tokens 67";
  EXPECT_EQ(told({{{0, {0, 1, 2}, {0}}}, {.min_shard_tokens = 66}}), Lines{});
  for (const char* planner : {"paper", "free", "lockstep"}) {
    EXPECT_EQ(told({{{0, {0, 1, 2}, {0}}}, {.planner = planner, .min_shard_tokens = 67}}), Lines{line});
  }
  for (const char* planner : {"static:3", "balanced-static", "ulysses", "megatron-dynamic"}) {
    EXPECT_EQ(told({{{0, {0, 1, 2}, {0}}}, {.planner = planner, .min_shard_tokens = 67}}), Lines{});
  }
  // 1,100 tokens need three ranks by memory, four if degrees divide 8.
  EXPECT_EQ(told({{{0, {0, 1, 2}, {2}}}, {.min_shard_tokens = 900}}), Lines{});
  EXPECT_EQ(told({{{0, {0, 1, 2, 4}, {2}}}, {.degrees_divide = {8}, .min_shard_tokens = 900}}), Lines{});
  EXPECT_EQ(told({{{0, {0, 1, 2, 4}, {2}}}, {.min_shard_tokens = 900}}).size(), 1U);
}

TEST(CheckOptions, PeersPlacementAndIdleRanks) {
  const std::vector<Task> tasks = {{0, {0, 1}, {0}}, {1, {4, 5, 6, 7}, {1}}, {2, {1, 2, 4}, {2}, 1}};
  EXPECT_EQ(told({tasks, {.max_peers = 4}}), (Lines{"rank 4 shares tasks with 5 ranks, more than the 4 of max_peers"}));
  EXPECT_EQ(told({tasks, {.max_peers = 5}}), Lines{});
  EXPECT_EQ(told({tasks, {.placement = Placement::consecutive}}), Lines{});  // 2, 4: rank 3 is out of service
  for (const std::vector<Rank>& ranks : {std::vector<Rank>{1, 0}, {0, 2}, {2, 5}}) {
    EXPECT_EQ(told({{{0, ranks, {0}}}, {.placement = Placement::consecutive}}),
              Lines{"tasks[0] is not on consecutive ranks in service, in rising order"});
  }
  const Lines idle = told({tasks, {.no_idle_ranks = true}});
  ASSERT_EQ(idle.size(), 5U);  // rank 2 of micro-batch 0; 0, 5, 6, 7 of 1
  EXPECT_EQ(idle[0], "rank 2 has no task in micro_batch 0, against no_idle_ranks");
  EXPECT_EQ(told({tasks, {.no_idle_ranks = true}, Schedule::free}), Lines{});
}

TEST(PlanOptions, CheckPlanNamesARankOutOfService) {
  Cluster cluster = make_cluster(1, 2, 512);
  const Batch batch = make_batch({10});
  Plan plan = plan_of(plan_batch(batch, cluster, cost_with_heads(), {.planner = "static:1"}));
  cluster.rank_speed = {0.0, 1.0};
  EXPECT_EQ(check_plan(plan, batch, cluster, cost_with_heads()), Lines{"tasks[0] has rank 0, which is out of service"});
}

}  // namespace
}  // namespace dhp::check_options_test
