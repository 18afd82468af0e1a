// Both lower bounds against the best plan there is, on random instances small enough to try all plans: how many, and
// which, by DHP_TEST_SHARE and DHP_TEST_SEED, as in plan_property_test.cpp.
#include <cmath>
#include <iostream>
#include <limits>

#include "cost/bound/tighter_bound.h"
#include "exhaustive.h"
#include "support.h"

namespace dhp::bound_exhaustive_test {
namespace {

struct Instance {
  Batch batch;
  Cluster cluster;
  CostModel cost;
};

/// Zero in one of four cases, so that every term of the formula is absent in some instances; else up to `most`, over
/// three orders of magnitude.
double some(test::Random& random, double most) {
  return random.whole(0, 3) == 0 ? 0.0 : most * std::pow(10.0, -3.0 * random.unit());
}

Cluster random_cluster(test::Random& random, int most_ranks, double memory_bytes) {
  Cluster cluster{.memory_bytes = memory_bytes};
  do {
    cluster.nodes = static_cast<int>(random.whole(1, 3));
    cluster.ranks_per_node = static_cast<int>(random.whole(1, most_ranks));
  } while (cluster.ranks() > most_ranks);
  const double bandwidth = std::pow(10.0, 3.0 * random.unit());
  cluster.intra_node = {bandwidth, some(random, 0.1), static_cast<int>(random.whole(1, 4))};
  cluster.inter_node = {bandwidth * std::pow(10.0, 1.0 - 2.0 * random.unit()), some(random, 0.1), 1};
  if (random.whole(0, 2) == 0) {
    static constexpr double kSpeeds[] = {1.0, 1.0, 0.9, 0.5, 0.1, 0.0};
    for (int rank = 0; rank < cluster.ranks(); ++rank) cluster.rank_speed.push_back(kSpeeds[random.whole(0, 5)]);
    if (cluster.live_ranks().empty()) cluster.rank_speed[0] = 0.7;
  }
  return cluster;
}

/// A sequence of 1 to 40 tokens takes up to some ten seconds.
CostModel random_cost(test::Random& random) {
  CostModel cost;
  cost.layers = static_cast<int>(random.whole(1, 3));
  cost.task_s = some(random, 2.0);
  cost.patch_s = some(random, 0.2);
  for (PassCost* pass : {&cost.forward, &cost.backward}) {
    pass->token_s = some(random, 0.2);
    pass->pair_s = some(random, 0.02);
    pass->step_s = some(random, 0.5);
    pass->sequence_step_s = some(random, 0.2);
    pass->ring_bytes_per_token = some(random, 10.0);
  }
  cost.token_bytes = 1.0;
  cost.patch_bytes = some(random, 1.0);
  cost.state_bytes = static_cast<double>(random.whole(0, 1)) * 7.0;
  return cost;
}

Instance random_instance(test::Random& random, std::int64_t sequences, int most_ranks) {
  Instance one;
  one.cost = random_cost(random);
  const std::int64_t longest = random.whole(0, 1) == 0 ? 10 : 40;
  for (std::int64_t id = 0; id < sequences; ++id) {
    const std::int64_t patches = random.whole(0, 1) == 0 ? 0 : random.whole(0, 30);
    one.batch.sequences.push_back({id, random.whole(1, longest), patches});
  }
  // From ample memory to groups that one sequence fills.
  const double budget = static_cast<double>(longest) * (random.whole(0, 3) == 0 ? 20.0 : 0.3 + 1.2 * random.unit());
  one.cluster = random_cluster(random, most_ranks, budget + one.cost.state_bytes);
  if (random.whole(0, 1) == 0) return one;
  // Vision that groups cannot split at will: often one picture, which takes as long on any group.
  one.cost.patch_pair_s = some(random, 0.02);
  for (Sequence& sequence : one.batch.sequences) {
    sequence.frame_patches = random.whole(0, 1) == 0 ? sequence.patches : random.whole(0, sequence.patches);
  }
  return one;
}

/// Every task that may come next, with nothing left out: what ExhaustiveSearch cuts short.
double best_of_all_s(const Instance& one, Plan& plan, std::uint32_t left) {
  if (left == 0) {
    return replay(plan, predict_task_seconds(plan, one.batch, one.cluster, one.cost)).makespan_s;
  }
  double best = std::numeric_limits<double>::infinity();
  for (std::uint32_t set = left; set != 0; set = (set - 1) & left) {
    for (std::uint32_t group = 1; group < 1U << one.cluster.ranks(); ++group) {
      for (const Exchange exchange : {Exchange::ring, Exchange::direct, Exchange::hierarchical}) {
        Task task{.id = static_cast<int>(plan.tasks.size()), .exchange = exchange};
        Load load;
        for (std::size_t i = 0; i < one.batch.sequences.size(); ++i) {
          if ((set >> i & 1U) == 0) continue;
          task.sequences.push_back(one.batch.sequences[i].id);
          load.add(one.batch.sequences[i]);
        }
        for (Rank rank = 0; rank < one.cluster.ranks(); ++rank) {
          if ((group >> rank & 1U) != 0) task.ranks.push_back(rank);
        }
        if (task_memory_bytes(one.cost, load, task.degree()) > activation_budget_bytes(one.cost, one.cluster)) break;
        plan.tasks.push_back(task);
        best = std::min(best, best_of_all_s(one, plan, left & ~set));
        plan.tasks.pop_back();
        if (task.degree() == 1) break;  // no transfer: the exchanges are one
      }
    }
  }
  return best;
}

TEST(Exhaustive, EqualsTryingEveryOrderOfEveryTask) {
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    test::Random random(seed);
    const bool wide = seed % 4 == 0;
    const Instance one = random_instance(random, wide ? 2 : random.whole(1, 3), wide ? 4 : 2);
    const test::ExhaustiveSearch search(one.batch, one.cluster, one.cost);
    Plan plan{.ranks = one.cluster.ranks()};
    const double expected = best_of_all_s(one, plan, (1U << one.batch.sequences.size()) - 1);
    EXPECT_EQ(search.makespan_s(), expected);
    if (!std::isfinite(expected)) continue;
    const Plan best = search.best();
    EXPECT_EQ(check_plan(best, one.batch, one.cluster, one.cost), std::vector<std::string>{});
    EXPECT_EQ(best.predicted->makespan_s, expected);
  }
}

/// Optimum over bound, gathered over instances.
class Distance {
 public:
  void add(double optimum, double bound) {
    logs_ += std::log(optimum / bound);
    worst_ = std::max(worst_, optimum / bound);
    ++count_;
  }
  std::string text() const {
    return "geometric mean " + std::to_string(std::exp(logs_ / std::max(1, count_))) + ", worst " +
           std::to_string(worst_) + " of " + std::to_string(count_);
  }

 private:
  double logs_ = 0.0;
  double worst_ = 1.0;
  int count_ = 0;
};

/// Factors from a third to three for some groups.
std::vector<ResidualFactor> random_residuals(test::Random& random, int most_ranks) {
  std::vector<ResidualFactor> made;
  for (int degree = 2; degree <= most_ranks; ++degree) {
    for (std::int64_t tokens = 1; tokens <= 32; tokens *= 2) {
      if (random.whole(0, 1) == 0) made.push_back({degree, tokens, std::pow(3.0, 2 * random.unit() - 1)});
    }
  }
  return made;
}

/// Checks `most` instances, or the share of them that is asked for, and says how far the bounds are from the optimum.
void check_instances(std::uint64_t offset, std::uint64_t most, std::int64_t most_sequences, int most_ranks,
                     bool has_residuals = false) {
  Distance simple_distance;
  Distance sampled_distance;
  Distance tighter_distance;
  const std::uint64_t first = offset + test::first_seed(0);
  const std::uint64_t count = test::share_of(most);
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    test::Random random(seed);
    Instance one = random_instance(random, random.whole(1, most_sequences), most_ranks);
    if (has_residuals) one.cost.residuals = random_residuals(random, most_ranks);
    const double optimum = test::ExhaustiveSearch(one.batch, one.cluster, one.cost).makespan_s();
    if (!std::isfinite(optimum) || optimum == 0.0) continue;  // nothing fits, or nothing costs
    const double simple = simple_lower_bound_s(one.batch, one.cluster, one.cost);
    const double sampled = tighter_lower_bound(one.batch, one.cluster, one.cost, 1).seconds;
    const double tighter = tighter_lower_bound_s(one.batch, one.cluster, one.cost);
    EXPECT_LE(simple, sampled);
    EXPECT_LE(simple, tighter);
    EXPECT_LE(sampled, optimum * (1 + 1e-9));
    EXPECT_LE(tighter, optimum * (1 + 1e-9));
    simple_distance.add(optimum, simple);
    sampled_distance.add(optimum, sampled);
    tighter_distance.add(optimum, tighter);
  }
  std::cout << count << " instances from seed " << first << " on\noptimum / simple:  " << simple_distance.text()
            << "\noptimum / tighter: " << tighter_distance.text() << "\n  of a sample:     " << sampled_distance.text()
            << '\n';
}

TEST(BoundExhaustive, FewSequencesOnFewRanks) { check_instances(1, 60000, 3, 4); }

TEST(BoundExhaustive, UpToFiveSequences) { check_instances(1000001, 12000, 5, 4); }

TEST(BoundExhaustive, UpToFiveRanks) { check_instances(2000001, 12000, 4, 5); }

TEST(BoundExhaustive, ResidualFactors) { check_instances(3000001, 12000, 4, 4, true); }

}  // namespace
}  // namespace dhp::bound_exhaustive_test
