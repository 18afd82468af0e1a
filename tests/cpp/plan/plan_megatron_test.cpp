// The schedulers of Megatron-Core against what their own functions answer (tests/golden/make_megatron_schedules.py).

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "plan_support.h"

namespace dhp::plan_megatron_test {
namespace {

using test::infeasible_of;
using test::make_batch;
using test::make_cluster;
using test::make_cost;
using test::plan_of;

using Lengths = std::vector<std::int64_t>;

/// [first rank, degree, [positions]] of every group, round by round, in the order of their ranks.
nlohmann::json rounds_of(const Plan& plan) {
  nlohmann::json rounds = nlohmann::json::array();
  for (const Task& task : plan.tasks) {
    if (task.micro_batch == static_cast<int>(rounds.size())) rounds.push_back(nlohmann::json::array());
    nlohmann::json& groups = rounds.back();
    const bool same = !groups.empty() && groups.back()[0] == task.ranks.front();
    if (!same) groups.push_back({task.ranks.front(), task.degree(), nlohmann::json::array()});
    EXPECT_EQ(groups.back()[1], task.degree());
    for (const std::int64_t id : task.sequences) groups.back()[2].push_back(id);
  }
  return rounds;
}

/// Whether every group is one of those that Megatron-Core makes: 1, 2, 4 … below the largest power, and all ranks.
bool has_communicators(const nlohmann::json& rounds, int ranks) {
  for (const auto& groups : rounds) {
    for (const auto& group : groups) {
      const int first = group[0];
      const int degree = group[1];
      bool known = degree == ranks || degree == 1;
      for (int size = 2; size * 2 <= ranks; size *= 2) known = known || (degree == size && first % size == 0);
      if (!known) return false;
    }
  }
  return true;
}

TEST(PlanMegatron, EqualsTheirOwnFunctions) {
  std::ifstream stream(test::golden_file("megatron_schedules.json"));
  int planned = 0;
  int raised = 0;
  int missing = 0;
  const auto golden = nlohmann::json::parse(stream);
  for (const auto& one : golden["cases"]) {
    SCOPED_TRACE(one.dump());
    const int ranks = one["ranks"];
    const Cluster cluster = make_cluster(ranks / 2, 2, one["tokens_per_rank"]);
    const Batch batch = make_batch(one["lengths"].get<Lengths>());
    const std::string planner = one["planner"].get<std::string>() + ":" + one["tokens_per_rank"].dump();
    const PlanResult result = plan_batch(batch, cluster, make_cost(), {.planner = planner});
    if (one.contains("raises")) {
      const std::string reason = infeasible_of(result).reason;
      EXPECT_NE(reason.find(one["raises"] == "AssertionError" ? "asserts" : "raises"), std::string::npos) << reason;
      ++raised;
    } else if (!has_communicators(one["rounds"], ranks)) {
      const std::string reason = infeasible_of(result).reason;
      EXPECT_TRUE(reason.starts_with("its rules ask for a group of ranks")) << reason;
      ++missing;
    } else {
      const Plan plan = plan_of(result);
      test::expect_valid(plan, batch, cluster, make_cost());
      EXPECT_EQ(rounds_of(plan), one["rounds"]);
      EXPECT_EQ(plan.schedule, one["planner"] == "megatron-hybrid" ? Schedule::rounds : Schedule::lockstep);
      ++planned;
    }
  }
  EXPECT_GE(planned, 180);
  EXPECT_GE(raised, 30);
  EXPECT_GT(missing, 0);
}

TEST(PlanMegatron, FillSpreadsShortSamples) {
  // The rule leaves no rank empty: 128 tokens stand on four ranks because 8192 need no more than four.
  const Cluster cluster = make_cluster(1, 8, 2048);
  const Plan plan =
      plan_of(plan_batch(make_batch({8192, 128}), cluster, make_cost(), {.planner = "megatron-dynamic:2048"}));
  ASSERT_EQ(plan.tasks.size(), 2U);
  EXPECT_EQ(plan.tasks[0].ranks, (std::vector<Rank>{0, 1, 2, 3}));
  EXPECT_EQ(plan.tasks[1].ranks, (std::vector<Rank>{4, 5, 6, 7}));
}

TEST(PlanMegatron, TokensOfARankComeFromTheHeaviestToken) {
  // The second sequence takes 1.5 bytes a token: 512 bytes hold 341 of them, so 600 tokens of text need two ranks, and
  // 1,400 of the ranks' 1,364 do not fit although their bytes would.
  const Cluster cluster = make_cluster(1, 4, 512);
  Batch batch = make_batch({600, 100});
  batch.sequences[1].patches = 200;
  for (const char* planner : {"megatron-hybrid:341", "megatron-dynamic:341"}) {
    const Plan plan = plan_of(plan_batch(batch, cluster, make_cost(), {.planner = planner}));
    test::expect_valid(plan, batch, cluster, make_cost());
    EXPECT_EQ(plan.tasks[0].degree(), 2);
  }
  for (const char* planner : {"megatron-hybrid:342", "megatron-dynamic:342"}) {
    EXPECT_EQ(infeasible_of(plan_batch(batch, cluster, make_cost(), {.planner = planner})).reason,
              "342 tokens do not surely fit a rank: by the sequence with most bytes a token, and by the cap, it holds "
              "341");
  }
  batch.sequences[0].tokens = 1400;
  for (const char* planner : {"megatron-hybrid", "megatron-dynamic"}) {
    const std::string reason = infeasible_of(plan_batch(batch, cluster, make_cost(), {.planner = planner})).reason;
    EXPECT_NE(reason.find("1400 tokens needs degree 8 at 341 tokens a rank"), std::string::npos) << reason;
  }
}

TEST(PlanMegatron, BestOfFiveTokensPerRank) {
  constexpr std::uint64_t kSeed = 5;
  test::Random random(kSeed);
  for (int round = 0; round < 50; ++round) {
    SCOPED_TRACE("seed " + std::to_string(kSeed) + ", round " + std::to_string(round));
    const Cluster cluster = make_cluster(2, 4, 512);
    Lengths lengths(static_cast<std::size_t>(random.whole(1, 30)));
    for (std::int64_t& length : lengths) length = random.whole(1, random.whole(0, 3) == 0 ? 4096 : 300);
    const Batch batch = make_batch(lengths);
    for (const std::string name : {"megatron-hybrid", "megatron-dynamic"}) {
      double best_s = std::numeric_limits<double>::infinity();
      for (const char* tokens : {":512", ":256", ":128", ":64", ":32"}) {
        const PlanResult result = plan_batch(batch, cluster, make_cost(), {.planner = name + tokens});
        if (const auto* plan = std::get_if<Plan>(&result)) best_s = std::min(best_s, plan->predicted->makespan_s);
      }
      const Plan plan = plan_of(plan_batch(batch, cluster, make_cost(), {.planner = name}));
      test::expect_valid(plan, batch, cluster, make_cost());
      EXPECT_EQ(plan.predicted->makespan_s, best_s);
    }
  }
}

TEST(PlanMegatron, OddNumberOfRanksIsTheirAssertion) {
  for (const char* planner : {"megatron-hybrid", "megatron-dynamic"}) {
    const PlanResult result = plan_batch(make_batch({5}), make_cluster(1, 3, 512), make_cost(), {.planner = planner});
    EXPECT_EQ(infeasible_of(result).reason, "it asserts an even number of ranks; 3 are in service");
  }
}

}  // namespace
}  // namespace dhp::plan_megatron_test
