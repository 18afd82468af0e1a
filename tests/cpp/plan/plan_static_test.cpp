// The planners "static" and "ulysses" against a small second implementation, and what "balanced-static" promises.

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>

#include "plan_support.h"

namespace dhp::plan_static_test {
namespace {

using test::infeasible_of;
using test::make_batch;
using test::make_cluster;
using test::make_cost;
using test::plan_of;

/// What a plan decides, without its annotation.
struct Outline {
  double makespan_s = 0.0;
  std::vector<std::vector<std::int64_t>> packs;
};

std::vector<Rank> group_ranks(std::size_t pack, int degree, int ranks) {
  const int group = static_cast<int>(pack) % (ranks / degree);
  std::vector<Rank> result(static_cast<std::size_t>(degree));
  std::iota(result.begin(), result.end(), group * degree);
  return result;
}

/// Next-fit by counting bytes, dealt in turn, a sum of times per group.
Outline reference(const Batch& batch, const Cluster& cluster, const CostModel& cost, int degree, double share,
                  Exchange exchange) {
  Outline outline;
  std::vector<std::vector<Sequence>> packs;
  double used = 0.0;
  for (const Sequence& sequence : batch.sequences) {
    const double bytes = static_cast<double>(sequence.tokens) * cost.token_bytes +
                         static_cast<double>(sequence.patches) * cost.patch_bytes;
    if (packs.empty() || used + bytes > share * degree * (cluster.memory_bytes - cost.state_bytes)) {
      packs.emplace_back();
      used = 0.0;
    }
    packs.back().push_back(sequence);
    used += bytes;
  }
  std::vector<double> busy(static_cast<std::size_t>(cluster.ranks() / degree), 0.0);
  for (std::size_t pack = 0; pack < packs.size(); ++pack) {
    const GroupShape shape = shape_of(cluster, group_ranks(pack, degree, cluster.ranks()));
    busy[pack % busy.size()] += task_seconds(cost, cluster, load_of(packs[pack]), shape, exchange);
    std::vector<std::int64_t> ids;
    for (const Sequence& sequence : packs[pack]) ids.push_back(sequence.id);
    outline.packs.push_back(ids);
  }
  outline.makespan_s = *std::max_element(busy.begin(), busy.end());
  return outline;
}

/// The best of the five pack sizes; the larger among equals.
Outline best_reference(const Batch& batch, const Cluster& cluster, const CostModel& cost, int degree,
                       Exchange exchange) {
  Outline best = reference(batch, cluster, cost, degree, 1.0, exchange);
  for (const double share : {0.5, 0.25, 0.125, 0.0625}) {
    Outline outline = reference(batch, cluster, cost, degree, share, exchange);
    if (outline.makespan_s < best.makespan_s) best = std::move(outline);
  }
  return best;
}

Batch random_batch(test::Random& random, std::int64_t longest) {
  Batch batch;
  const auto sequences = random.whole(1, 60);
  for (std::int64_t i = 0; i < sequences; ++i) {
    const std::int64_t tokens = random.whole(0, 4) == 0 ? random.whole(1, longest) : random.whole(1, longest / 8);
    batch.sequences.push_back({1000 - i * 3, tokens, random.whole(0, 1) * random.whole(0, 4 * tokens / 3)});
  }
  return batch;
}

/// Every degree alone, and the best of them.
int compare(const std::string& name, const Batch& batch, const Cluster& cluster, const CostModel& cost) {
  const bool ulysses = name == "ulysses";
  int planned = 0;
  double best_s = std::numeric_limits<double>::infinity();
  for (int degree = 1; degree <= cluster.ranks(); ++degree) {
    if (cluster.ranks() % degree != 0) continue;
    const auto result = plan_batch(batch, cluster, cost, {.planner = name + ":" + std::to_string(degree)});
    if (ulysses && cost.query_heads % degree != 0) {
      EXPECT_NE(infeasible_of(result).reason.find("query heads"), std::string::npos);
    }
    if (std::holds_alternative<Infeasible>(result)) continue;
    const Plan& plan = std::get<Plan>(result);
    test::expect_valid(plan, batch, cluster, cost);
    const Exchange exchange = ulysses && degree > 1 ? Exchange::all_to_all : Exchange::ring;
    const Outline expected = best_reference(batch, cluster, cost, degree, exchange);
    test::expect_relative(plan.predicted->makespan_s, expected.makespan_s, 1e-12);
    EXPECT_EQ(plan.tasks.size(), expected.packs.size());
    for (std::size_t pack = 0; pack < plan.tasks.size(); ++pack) {
      EXPECT_EQ(plan.tasks[pack].sequences, expected.packs[pack]);
      EXPECT_EQ(plan.tasks[pack].ranks, group_ranks(pack, degree, cluster.ranks()));
      EXPECT_EQ(plan.tasks[pack].exchange, exchange);
    }
    best_s = std::min(best_s, expected.makespan_s);
    ++planned;
  }
  const auto result = plan_batch(batch, cluster, cost, {.planner = name});
  if (best_s == std::numeric_limits<double>::infinity()) {
    infeasible_of(result);
  } else {
    test::expect_relative(plan_of(result).predicted->makespan_s, best_s, 1e-12);
  }
  return planned;
}

TEST(PlanStatic, EqualsSecondImplementation) {
  constexpr std::uint64_t kSeed = 11;
  test::Random random(kSeed);
  CostModel cost = make_cost();
  cost.forward.all_to_all_bytes_per_token = 12.0;
  cost.backward.all_to_all_bytes_per_token = 24.0;
  int planned = 0;
  for (int round = 0; round < 200; ++round) {
    SCOPED_TRACE("seed " + std::to_string(kSeed) + ", round " + std::to_string(round));
    const Cluster cluster =
        make_cluster(static_cast<int>(random.whole(1, 3)), static_cast<int>(random.whole(1, 4)), 512);
    const Batch batch = random_batch(random, 512);
    cost.query_heads = static_cast<int>(random.whole(1, 12));
    planned += compare("static", batch, cluster, cost);
    planned += compare("ulysses", batch, cluster, cost);
  }
  EXPECT_GT(planned, 400);
}

TEST(PlanUlysses, CostModelMustKnowHeadsAndBytes) {
  CostModel cost = make_cost();
  const auto plan = [&] {
    return test::input_error(
        [&] { plan_batch(make_batch({5}), make_cluster(1, 2, 512), cost, {.planner = "ulysses:1"}); });
  };
  EXPECT_EQ(plan(), "cost model \"round\": query_heads: missing; exchange all_to_all needs it");
  cost.query_heads = 4;
  EXPECT_EQ(plan(), "cost model \"round\": forward.all_to_all_bytes_per_token: missing; exchange all_to_all needs it");
}

/// Seconds and group of every task; groups by their first rank.
struct Dealt {
  std::vector<double> seconds;
  std::map<Rank, double> busy_s;
};

TEST(PlanBalancedStatic, NoMoveOrSwapOutOfTheSlowestGroupHelps) {
  constexpr std::uint64_t kSeed = 12;
  test::Random random(kSeed);
  const CostModel cost = make_cost();
  for (int round = 0; round < 100; ++round) {
    SCOPED_TRACE("seed " + std::to_string(kSeed) + ", round " + std::to_string(round));
    const Cluster cluster = make_cluster(1, static_cast<int>(random.whole(2, 8)), 512);
    const Batch batch = random_batch(random, 512);
    const Plan plan = plan_of(plan_batch(batch, cluster, cost, {.planner = "balanced-static"}));
    test::expect_valid(plan, batch, cluster, cost);
    EXPECT_LE(plan.predicted->makespan_s,
              plan_of(plan_batch(batch, cluster, cost, {.planner = "static"})).predicted->makespan_s);
    Dealt dealt{predict_task_seconds(plan, batch, cluster, cost), {}};
    const int degree = plan.tasks[0].degree();
    for (Rank first = 0; first < cluster.ranks(); first += degree) dealt.busy_s[first] = 0.0;
    for (const Task& task : plan.tasks) dealt.busy_s[task.ranks[0]] += dealt.seconds[static_cast<std::size_t>(task.id)];
    const auto slowest = std::max_element(dealt.busy_s.begin(), dealt.busy_s.end(),
                                          [](const auto& a, const auto& b) { return a.second < b.second; });
    const double limit_s = slowest->second * (1 - 1e-9);
    for (const Task& out : plan.tasks) {
      if (out.ranks[0] != slowest->first) continue;
      const double out_s = dealt.seconds[static_cast<std::size_t>(out.id)];
      for (const auto& [first, busy_s] : dealt.busy_s) {
        if (first == slowest->first) continue;
        EXPECT_GE(busy_s + out_s, limit_s);
      }
      for (const Task& back : plan.tasks) {
        if (back.ranks[0] == slowest->first) continue;
        const double more_s = out_s - dealt.seconds[static_cast<std::size_t>(back.id)];
        EXPECT_GE(std::max(slowest->second - more_s, dealt.busy_s[back.ranks[0]] + more_s), limit_s);
      }
    }
  }
}

TEST(PlanBalancedStatic, BalancesWhatStaticDealsInTurn) {
  // In turn: 400 and 400 meet on one rank.
  const Cluster cluster = make_cluster(1, 2, 400);
  const Batch batch = make_batch({400, 10, 400, 10});
  const Plan plan = plan_of(plan_batch(batch, cluster, make_cost(), {.planner = "balanced-static:1"}));
  EXPECT_EQ(plan.planner, "balanced-static:1");
  ASSERT_EQ(plan.tasks[0].ranks, std::vector<Rank>{0});
  EXPECT_EQ(plan.tasks[0].sequences, std::vector<std::int64_t>{0});
  const auto other =
      std::find_if(plan.tasks.begin(), plan.tasks.end(), [](const Task& task) { return task.sequences[0] == 2; });
  ASSERT_NE(other, plan.tasks.end());
  EXPECT_EQ(other->ranks, std::vector<Rank>{1});
}

TEST(PlanStatic, LongSequenceGetsAPackOfItsOwn) {
  // At 1/16 a pack holds 64 tokens, yet the sequence of 1,000 still runs.
  const Cluster cluster = make_cluster(1, 2, 512);
  const Batch batch = make_batch({10, 1000, 10, 10});
  const Plan plan = plan_of(plan_batch(batch, cluster, make_cost(), {.planner = "static:2"}));
  test::expect_valid(plan, batch, cluster, make_cost());
  EXPECT_EQ(plan.schedule, Schedule::free);
  EXPECT_EQ(plan.planner, "static:2");
}

TEST(PlanStatic, TooLongForTheDegreeIsInfeasible) {
  const Cluster cluster = make_cluster(1, 4, 512);
  const Infeasible answer =
      infeasible_of(plan_batch(make_batch({10, 1500}), cluster, make_cost(), {.planner = "static:2"}));
  EXPECT_EQ(answer.sequence, 1);
  EXPECT_EQ(answer.needed_ranks, 3);
  EXPECT_EQ(answer.needed_bytes, 1500.0);
  EXPECT_EQ(answer.offered_bytes, 1024.0);
}

TEST(PlanStatic, DegreeMustDivideTheRanks) {
  const Cluster cluster = make_cluster(2, 3, 512);
  const auto plan = [&](const std::string& planner) {
    return test::input_error([&] { plan_batch(make_batch({5}), cluster, make_cost(), {.planner = planner}); });
  };
  EXPECT_EQ(plan("static:4"),
            "--planner: found \"static:4\", but 4 does not divide the 6 ranks; choose one of 1, 2, 3, 6");
  for (const char* planner : {"static:", "static:0", "static:-2", "static:2x", "static:99999999999", "static: 2"}) {
    EXPECT_EQ(plan(planner),
              "--planner: found \"" + std::string(planner) + "\", expected a whole number of at least 1 after static:");
  }
  EXPECT_TRUE(plan("fast").starts_with("--planner: found \"fast\", expected one of "));
  EXPECT_TRUE(plan("paper:2").starts_with("--planner: found \"paper:2\", expected one of "));
}

}  // namespace
}  // namespace dhp::plan_static_test
