// The checker: valid plans pass, and each kind of violation, planted alone, is named.
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <map>
#include <set>

#include "dhp/bound.h"
#include "dhp/plan.h"
#include "support.h"

namespace dhp::check_plan_test {
namespace {

constexpr double kGibibyte = 1024.0 * 1024.0 * 1024.0;

Cluster small_cluster() {
  return {.nodes = 2,
          .ranks_per_node = 4,
          .memory_bytes = 10 * kGibibyte,
          .intra_node = {.bandwidth_bytes_per_s = 1e10, .latency_s = 1e-5, .links = 7},
          .inter_node = {.bandwidth_bytes_per_s = 5e9, .latency_s = 3e-5}};
}

/// 1 MiB a token; 8 GiB for activations: 8,192 tokens a rank.
CostModel small_cost() {
  const PassCost pass{
      .token_s = 1e-5, .pair_s = 1e-9, .step_s = 1e-3, .ring_bytes_per_token = 1e5, .all_to_all_bytes_per_token = 3e5};
  return {.name = "small",
          .layers = 4,
          .task_s = 0.01,
          .patch_s = 1e-6,
          .forward = pass,
          .backward = pass,
          .query_heads = 8,
          .kv_heads = 2,
          .token_bytes = 1024.0 * 1024.0,
          .patch_bytes = 1024.0,
          .state_bytes = 2 * kGibibyte};
}

Batch small_batch() {
  return {.sequences = {{0, 20000, 0}, {1, 3000, 400}, {2, 8000, 0}, {3, 500, 0}, {4, 9000, 80}, {5, 64, 0}}};
}

struct Case {
  Plan plan;
  Batch batch = small_batch();
  Cluster cluster = small_cluster();
  CostModel cost = small_cost();

  std::vector<std::string> check() const { return check_plan(plan, batch, cluster, cost); }
};

/// Valid under every schedule, with every field filled in.
Case valid_case(Schedule schedule) {
  Case result;
  Plan& plan = result.plan;
  plan.schedule = schedule;
  plan.ranks = 8;
  plan.tasks = {{.id = 0, .ranks = {6, 1, 3}, .sequences = {0}, .exchange = Exchange::direct},
                {.id = 1, .ranks = {0}, .sequences = {1, 3}},
                {.id = 2, .ranks = {4, 5, 2, 7}, .sequences = {4}, .exchange = Exchange::all_to_all},
                {.id = 3, .ranks = {1, 2}, .sequences = {2}, .micro_batch = 1, .exchange = Exchange::hierarchical},
                {.id = 4, .ranks = {0}, .sequences = {5}, .micro_batch = 1}};
  annotate(plan, result.batch, result.cluster, result.cost);
  return result;
}

TEST(CheckPlan, ValidPlansPass) {
  for (const Schedule schedule : {Schedule::lockstep, Schedule::free, Schedule::rounds}) {
    Case valid = valid_case(schedule);
    EXPECT_EQ(valid.check(), std::vector<std::string>{});
    // Predictions and hash are optional.
    valid.plan.hash.clear();
    valid.plan.predicted.reset();
    for (Task& task : valid.plan.tasks) task.start_s = task.end_s = std::nullopt;
    EXPECT_EQ(valid.check(), std::vector<std::string>{});
  }
}

struct Violation {
  std::function<void(Case&)> plant;
  std::string sentence;  // how the one complaint begins
  bool keep_hash = false;
};

void expect_violations(Schedule schedule, const std::vector<Violation>& violations) {
  for (const Violation& violation : violations) {
    SCOPED_TRACE(violation.sentence);
    Case planted = valid_case(schedule);
    violation.plant(planted);
    // What is planted in tasks would show in the hash too: that is a violation of its own, below.
    if (!violation.keep_hash) planted.plan.hash = plan_hash(planted.plan, planted.batch);
    const auto found = planted.check();
    ASSERT_EQ(found.size(), 1U) << ::testing::PrintToString(found);
    EXPECT_EQ(found[0].rfind(violation.sentence, 0), 0U) << found[0];
  }
}

TEST(CheckPlan, TasksAndGroups) {
  expect_violations(
      Schedule::free,
      {{[](Case& c) { c.plan.tasks[1].id = 2; }, "tasks[1] has id 2, expected 1"},
       {[](Case& c) { c.plan.tasks[0].id = 1; }, "tasks[0] has id 1, expected 0"},
       {[](Case& c) { c.plan.tasks[4].ranks = {8}; }, "tasks[4] has rank 8, outside 0 to 7"},
       {[](Case& c) { c.plan.tasks[4].ranks = {-1}; }, "tasks[4] has rank -1, outside 0 to 7"},
       {[](Case& c) {
          c.plan.tasks[3].ranks = {1, 1};
        },
        "tasks[3] has rank 1 twice"},
       {[](Case& c) { c.plan.tasks[4].ranks = {}; }, "tasks[4] has no ranks"},
       {[](Case& c) { c.plan.tasks[3].micro_batch = 2; }, "tasks[4] has micro_batch 1 after micro_batch 2"},
       {[](Case& c) { c.plan.tasks[0].micro_batch = -1; }, "tasks[0] has micro_batch -1, expected at least 0"},
       {[](Case& c) { c.cluster.nodes = 3; }, "the plan is for 8 ranks, the cluster has 12"},
       {[](Case& c) { c.cost.query_heads = 6; }, "tasks[2] uses all_to_all on 4 ranks, which do not divide 6"},
       {[](Case& c) { c.cost.query_heads = 0; }, "tasks[2] uses all_to_all, but the cost model lacks query_heads"}});
}

TEST(CheckPlan, Sequences) {
  expect_violations(
      Schedule::rounds,
      {{[](Case& c) { c.plan.tasks[1].sequences = {1}; }, "sequence 3 is in no task"},
       {[](Case& c) {
          c.plan.tasks[1].sequences = {1, 3, 99};
        },
        "tasks[1] has sequence 99, which the batch lacks"},
       {[](Case& c) {
          c.plan.tasks[4].sequences = {5, 3};
          annotate(c.plan, c.batch, c.cluster, c.cost);
        },
        "sequence 3 stands in tasks[1] and again in tasks[4]"},
       {[](Case& c) {
          c.plan.tasks[1].sequences = {1, 3, 3};
          annotate(c.plan, c.batch, c.cluster, c.cost);
        },
        "sequence 3 stands in tasks[1] and again in tasks[1]"},
       {[](Case& c) { c.plan.tasks.push_back({.id = 5, .ranks = {3}, .micro_batch = 1}); },
        "tasks[5] has no sequences"},
       {[](Case& c) { c.batch.sequences.push_back({.id = 6, .tokens = 10}); }, "sequence 6 is in no task"}});
}

TEST(CheckPlan, Memory) {
  // The tightest group is 3 ranks with 20,000 tokens: 6.51 GiB a rank of 8.
  expect_violations(Schedule::free, {{[](Case& c) { c.cost.state_bytes = 3.5 * kGibibyte; },
                                      "tasks[0] needs 6.51 GiB a rank for activations, 6.5 GiB are there"},
                                     {[](Case& c) { c.cluster.memory_bytes = 8.5 * kGibibyte; },
                                      "tasks[0] needs 6.51 GiB a rank for activations, 6.5 GiB are there"}});
  Case just_fits = valid_case(Schedule::free);
  just_fits.cost.state_bytes = just_fits.cluster.memory_bytes - 20000.0 / 3 * just_fits.cost.token_bytes;
  EXPECT_EQ(just_fits.check(), std::vector<std::string>{});
}

TEST(CheckPlan, LockstepGroupsAreDisjoint) {
  expect_violations(Schedule::lockstep, {{[](Case& c) {
                                            c.plan.tasks[2].ranks = {4, 5, 2, 6};
                                            annotate(c.plan, c.batch, c.cluster, c.cost);
                                          },
                                          "lockstep: rank 6 is in tasks[0] and tasks[2] of micro_batch 0"}});
  Case rounds = valid_case(Schedule::rounds);
  rounds.plan.tasks[2].ranks = {4, 5, 2, 6};
  annotate(rounds.plan, rounds.batch, rounds.cluster, rounds.cost);
  EXPECT_EQ(rounds.check(), std::vector<std::string>{});
}

TEST(CheckPlan, HashAndPredictions) {
  const auto keep = [](std::function<void(Case&)> plant, std::string sentence) {
    return Violation{std::move(plant), std::move(sentence), true};
  };
  expect_violations(
      Schedule::free,
      {keep([](Case& c) { c.plan.hash[31] = c.plan.hash[31] == '0' ? '1' : '0'; }, "hash is "),
       keep([](Case& c) { c.plan.most_peers = 1; }, "most_peers is 1, expected 4"),
       keep([](Case& c) { c.plan.hash = "short"; }, "hash is short, but plan and batch give "),
       keep(
           [](Case& c) {
             c.plan.tasks[1].sequences = {3, 1};
           },
           "hash is "),
       keep([](Case& c) { std::swap(c.batch.sequences[0], c.batch.sequences[1]); }, "hash is "),
       keep([](Case& c) { c.plan.tasks[3].start_s = *c.plan.tasks[3].start_s * (1 + 1e-8); }, "tasks[3].start_s is "),
       keep([](Case& c) { c.plan.tasks[0].start_s = 1e-12; }, "tasks[0].start_s is 1e-12, expected 0"),
       keep([](Case& c) { c.plan.tasks[4].end_s = *c.plan.tasks[4].end_s + 1; }, "tasks[4].end_s is "),
       keep([](Case& c) { c.plan.tasks[4].end_s = std::numeric_limits<double>::quiet_NaN(); }, "tasks[4].end_s is nan"),
       keep([](Case& c) { c.plan.predicted->gap = 0.5; }, "predicted.gap is 0.5, expected"),
       keep([](Case& c) { c.plan.predicted->lower_bound_s = std::numeric_limits<double>::quiet_NaN(); },
            "predicted.lower_bound_s is nan")});
  Case makespan = valid_case(Schedule::free);
  makespan.plan.predicted->makespan_s *= 1 + 1e-8;
  EXPECT_EQ(makespan.check().at(0).rfind("predicted.makespan_s is ", 0), 0U);
  Case rounding = valid_case(Schedule::free);
  rounding.plan.predicted->makespan_s *= 1 + 1e-11;
  EXPECT_EQ(rounding.check(), std::vector<std::string>{});
}

TEST(CheckPlan, LowerBound) {
  Case bounded = valid_case(Schedule::free);
  bounded.plan.tasks[2].exchange = Exchange::ring;
  annotate(bounded.plan, bounded.batch, bounded.cluster, bounded.cost);
  EXPECT_EQ(bounded.check(), std::vector<std::string>{});
  Prediction& predicted = *bounded.plan.predicted;
  ASSERT_GT(predicted.lower_bound_s, 0.0);
  const auto claim = [&](double lower_bound_s) {
    predicted.lower_bound_s = lower_bound_s;
    predicted.gap = predicted.makespan_s / lower_bound_s - 1;
    return bounded.check();
  };
  const double simple = predicted.lower_bound_s;
  const double tighter = tighter_lower_bound_s(bounded.batch, bounded.cluster, bounded.cost);
  ASSERT_GT(tighter, simple * 1.001);
  EXPECT_EQ(claim(tighter), std::vector<std::string>{});
  EXPECT_EQ(claim(simple * (1 + 1e-10)), std::vector<std::string>{});
  for (const double wrong : {simple * 0.9, (simple + tighter) / 2, tighter * (1 + 1e-8), 0.0}) {
    const std::vector<std::string> found = claim(wrong);
    ASSERT_FALSE(found.empty());
    EXPECT_EQ(found[0].rfind("predicted.lower_bound_s is ", 0), 0U) << found[0];
    EXPECT_NE(found[0].find("(the simple bound)"), std::string::npos) << found[0];
  }
  EXPECT_NE(claim(predicted.makespan_s * 1.01).at(1).find("above the makespan"), std::string::npos);
  bounded.plan.tasks[2].exchange = Exchange::all_to_all;
  annotate(bounded.plan, bounded.batch, bounded.cluster, bounded.cost);
  EXPECT_EQ(bounded.check(), std::vector<std::string>{});
  EXPECT_TRUE(claim(simple).at(0).ends_with(", expected 0"));
}

TEST(CheckPlan, NamesEveryViolation) {
  Case broken = valid_case(Schedule::lockstep);
  broken.plan.tasks[0].ranks = {0, 0, 9};
  broken.plan.tasks[1].sequences = {1, 77};
  broken.plan.tasks[4].id = 9;
  const auto found = broken.check();
  // Twice 0, rank 9 outside, unknown 77, id 9, sequence 3 missing, rank 0 shared by tasks 0 and 1, hash.
  EXPECT_EQ(found.size(), 7U) << ::testing::PrintToString(found);
}

TEST(CheckPlan, TimelineAgreesWithReplayOnRandomPlans) {
  // The checker derives times by another way than annotate: they must agree on any valid plan.
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    test::Random random(seed);
    Case c;
    c.batch.sequences.clear();
    c.plan.schedule = random.whole(0, 1) == 0 ? Schedule::free : Schedule::rounds;
    c.plan.ranks = 8;
    const std::int64_t tasks = random.whole(1, 30);
    int micro_batch = 0;
    for (int id = 0; id < tasks; ++id) {
      micro_batch += static_cast<int>(random.whole(0, 5)) / 4;
      Task task{.id = id,
                .sequences = {id},
                .micro_batch = micro_batch,
                .exchange = static_cast<Exchange>(random.whole(0, 2))};
      for (Rank rank = 0; rank < 8; ++rank) {
        if (random.whole(0, 3) == 0) task.ranks.push_back(rank);
      }
      if (task.ranks.empty()) task.ranks = {static_cast<Rank>(random.whole(0, 7))};
      c.plan.tasks.push_back(std::move(task));
      c.batch.sequences.push_back({.id = id, .tokens = random.whole(1, 8000)});
    }
    annotate(c.plan, c.batch, c.cluster, c.cost);
    EXPECT_EQ(c.check(), std::vector<std::string>{});
    EXPECT_GE(c.plan.predicted->gap, 0.0);
  }
}

/// What the checker says of ranks that share micro-batches, and of how many each rank meets, by sets and maps.
std::vector<std::string> shared_and_met(const Plan& plan) {
  std::vector<std::string> found;
  std::map<std::pair<int, Rank>, std::string> used;
  std::map<Rank, std::set<Rank>> met;
  for (std::size_t i = 0; i < plan.tasks.size(); ++i) {
    const Task& task = plan.tasks[i];
    const std::string name = "tasks[" + std::to_string(i) + "]";
    for (const Rank rank : std::set<Rank>(task.ranks.begin(), task.ranks.end())) {
      const auto [first, is_new] = used.emplace(std::pair{task.micro_batch, rank}, name);
      if (!is_new) {
        found.push_back("lockstep: rank " + std::to_string(rank) + " is in " + first->second + " and " + name +
                        " of micro_batch " + std::to_string(task.micro_batch));
      }
      met[rank].insert(task.ranks.begin(), task.ranks.end());
    }
  }
  std::size_t most = 1;
  for (const auto& [rank, ranks] : met) most = std::max(most, ranks.size());
  if (plan.most_peers != static_cast<int>(most) - 1) {
    found.push_back("most_peers is " + std::to_string(*plan.most_peers) + ", expected " + std::to_string(most - 1));
  }
  return found;
}

/// Ranks may be outside the plan or stand in a task twice, and micro-batches in any order: that is said besides.
TEST(CheckPlan, SharedRanksAndPeersAsSetsCountThem) {
  const std::uint64_t first = test::first_seed(1);
  for (std::uint64_t seed = first; seed < first + test::share_of(500); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    test::Random random(seed);
    Case c;
    c.plan = {.schedule = Schedule::lockstep, .ranks = 8, .most_peers = static_cast<int>(random.whole(0, 6))};
    const std::int64_t tasks = random.whole(0, 12);
    const std::int64_t sorted = random.whole(0, 1);
    for (int id = 0; id < tasks; ++id) {
      Task task{.id = id, .micro_batch = static_cast<int>(sorted == 1 ? id / 3 : random.whole(0, 3))};
      for (std::int64_t left = random.whole(0, 4); left > 0; --left) {
        task.ranks.push_back(static_cast<Rank>(random.whole(-1, 9)));
      }
      c.plan.tasks.push_back(std::move(task));
    }
    std::vector<std::string> found = c.check();
    std::erase_if(found, [](const std::string& sentence) {
      return !sentence.starts_with("lockstep: ") && !sentence.starts_with("most_peers ");
    });
    EXPECT_EQ(found, shared_and_met(c.plan));
  }
}

}  // namespace
}  // namespace dhp::check_plan_test
