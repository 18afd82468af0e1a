// The planner "static" against a small second implementation.

#include <algorithm>
#include <numeric>

#include "plan_support.h"

namespace dhp {
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
Outline reference(const Batch& batch, const Cluster& cluster, const CostModel& cost, int degree, double share) {
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
    busy[pack % busy.size()] += task_seconds(cost, cluster, load_of(packs[pack]), shape, Exchange::ring);
    std::vector<std::int64_t> ids;
    for (const Sequence& sequence : packs[pack]) ids.push_back(sequence.id);
    outline.packs.push_back(ids);
  }
  outline.makespan_s = *std::max_element(busy.begin(), busy.end());
  return outline;
}

/// The best of the five pack sizes; the larger among equals.
Outline best_reference(const Batch& batch, const Cluster& cluster, const CostModel& cost, int degree) {
  Outline best = reference(batch, cluster, cost, degree, 1.0);
  for (const double share : {0.5, 0.25, 0.125, 0.0625}) {
    Outline outline = reference(batch, cluster, cost, degree, share);
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

TEST(PlanStatic, EqualsSecondImplementation) {
  constexpr std::uint64_t kSeed = 11;
  test::Random random(kSeed);
  const CostModel cost = make_cost();
  int planned = 0;
  for (int round = 0; round < 200; ++round) {
    SCOPED_TRACE("seed " + std::to_string(kSeed) + ", round " + std::to_string(round));
    const Cluster cluster =
        make_cluster(static_cast<int>(random.whole(1, 3)), static_cast<int>(random.whole(1, 4)), 512);
    const Batch batch = random_batch(random, 512);
    double best_s = std::numeric_limits<double>::infinity();
    for (int degree = 1; degree <= cluster.ranks(); ++degree) {
      if (cluster.ranks() % degree != 0) continue;
      const auto result = plan_batch(batch, cluster, cost, {.schedule = "static:" + std::to_string(degree)});
      if (std::holds_alternative<Infeasible>(result)) continue;
      const Plan& plan = std::get<Plan>(result);
      test::expect_valid(plan, batch, cluster, cost);
      const Outline expected = best_reference(batch, cluster, cost, degree);
      test::expect_relative(plan.predicted->makespan_s, expected.makespan_s, 1e-12);
      ASSERT_EQ(plan.tasks.size(), expected.packs.size());
      for (std::size_t pack = 0; pack < plan.tasks.size(); ++pack) {
        EXPECT_EQ(plan.tasks[pack].sequences, expected.packs[pack]);
        EXPECT_EQ(plan.tasks[pack].ranks, group_ranks(pack, degree, cluster.ranks()));
      }
      best_s = std::min(best_s, expected.makespan_s);
      ++planned;
    }
    const auto result = plan_batch(batch, cluster, cost, {.schedule = "static"});
    if (best_s == std::numeric_limits<double>::infinity()) {
      infeasible_of(result);
    } else {
      test::expect_relative(plan_of(result).predicted->makespan_s, best_s, 1e-12);
    }
  }
  EXPECT_GT(planned, 200);
}

TEST(PlanStatic, LongSequenceGetsAPackOfItsOwn) {
  // At 1/16 a pack holds 64 tokens, yet the sequence of 1,000 still runs.
  const Cluster cluster = make_cluster(1, 2, 512);
  const Batch batch = make_batch({10, 1000, 10, 10});
  const Plan plan = plan_of(plan_batch(batch, cluster, make_cost(), {.schedule = "static:2"}));
  test::expect_valid(plan, batch, cluster, make_cost());
  EXPECT_EQ(plan.schedule, Schedule::free);
  EXPECT_EQ(plan.planner, "static:2");
}

TEST(PlanStatic, TooLongForTheDegreeIsInfeasible) {
  const Cluster cluster = make_cluster(1, 4, 512);
  const Infeasible answer =
      infeasible_of(plan_batch(make_batch({10, 1500}), cluster, make_cost(), {.schedule = "static:2"}));
  EXPECT_EQ(answer.sequence, 1);
  EXPECT_EQ(answer.needed_ranks, 3);
  EXPECT_EQ(answer.needed_bytes, 1500.0);
  EXPECT_EQ(answer.offered_bytes, 1024.0);
}

TEST(PlanStatic, DegreeMustDivideTheRanks) {
  const Cluster cluster = make_cluster(2, 3, 512);
  const auto plan = [&](const std::string& schedule) {
    return test::input_error([&] { plan_batch(make_batch({5}), cluster, make_cost(), {.schedule = schedule}); });
  };
  EXPECT_EQ(plan("static:4"),
            "--schedule: found \"static:4\", but 4 does not divide the 6 ranks; choose one of 1, 2, 3, 6");
  for (const char* schedule : {"static:", "static:0", "static:-2", "static:2x", "static:99999999999", "static: 2"}) {
    EXPECT_EQ(plan(schedule), "--schedule: found \"" + std::string(schedule) +
                                  "\", expected a whole number of at least 1 after static:");
  }
  EXPECT_TRUE(plan("fast").starts_with("--schedule: found \"fast\", expected one of "));
  EXPECT_TRUE(plan("paper:2").starts_with("--schedule: found \"paper:2\", expected one of "));
}

}  // namespace
}  // namespace dhp
