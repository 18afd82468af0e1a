// allocate_degrees() against the paper's two-dimensional dynamic program.

#include "plan/peers/allocate.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "support.h"

namespace dhp::plan::plan_allocate_test {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();

struct Instance {
  int ranks = 0;
  std::vector<DegreeLimits> bins;
  std::vector<std::vector<double>> seconds;  // [bin][degree]
};

SecondsOf table_of(const Instance& instance) {
  return [&instance](int bin, int degree) {
    return instance.seconds[static_cast<std::size_t>(bin)][static_cast<std::size_t>(degree)];
  };
}

/// Slowest bin of the best allocation: after k bins, best[r] is the least maximum with r ranks used at most. Infinite
/// if the minimum degrees do not fit.
double dynamic_program(const Instance& instance) {
  const auto ranks = static_cast<std::size_t>(instance.ranks);
  std::vector<double> best(ranks + 1, 0.0);
  for (std::size_t bin = 0; bin < instance.bins.size(); ++bin) {
    std::vector<double> next(ranks + 1, kNever);
    for (std::size_t used = 0; used <= ranks; ++used) {
      for (auto degree = static_cast<std::size_t>(instance.bins[bin].min);
           degree <= static_cast<std::size_t>(instance.bins[bin].max) && degree <= used; ++degree) {
        next[used] = std::min(next[used], std::max(best[used - degree], instance.seconds[bin][degree]));
      }
    }
    best = std::move(next);
  }
  return best[ranks];
}

/// Times that fall like 1/d plus overhead growing with d, with plateaus, steps up, and sometimes plain noise.
Instance random_instance(test::Random& random) {
  Instance instance;
  instance.ranks = static_cast<int>(random.whole(1, 24));
  const auto bins = random.whole(0, 10);
  for (std::int64_t bin = 0; bin < bins; ++bin) {
    DegreeLimits limits;
    limits.min = static_cast<int>(random.whole(1, std::max(1, instance.ranks / 4)));
    limits.max = static_cast<int>(random.whole(limits.min, instance.ranks + 2));
    instance.bins.push_back(limits);
    std::vector<double> seconds;
    const double work = random.unit() * 20.0;
    const double overhead = random.unit();
    const auto kind = random.whole(0, 3);
    for (int degree = 0; degree <= limits.max; ++degree) {
      const int effective = kind == 1 ? 1 << (31 - __builtin_clz(static_cast<unsigned>(std::max(degree, 1)))) : degree;
      double value = work / std::max(effective, 1) + overhead * degree;
      if (kind == 2) value = std::floor(value * 2.0) / 2.0;
      if (kind == 3) value = random.unit() * 20.0;
      seconds.push_back(value);
    }
    instance.seconds.push_back(std::move(seconds));
  }
  return instance;
}

void expect_allocation_is_valid(const Instance& instance, const Allocation& allocation) {
  ASSERT_EQ(allocation.degrees.size(), instance.bins.size());
  EXPECT_LE(std::accumulate(allocation.degrees.begin(), allocation.degrees.end(), 0), instance.ranks);
  double slowest = 0.0;
  for (std::size_t bin = 0; bin < instance.bins.size(); ++bin) {
    EXPECT_GE(allocation.degrees[bin], instance.bins[bin].min);
    EXPECT_LE(allocation.degrees[bin], instance.bins[bin].max);
    slowest = std::max(slowest, instance.seconds[bin][static_cast<std::size_t>(allocation.degrees[bin])]);
  }
  EXPECT_EQ(allocation.slowest_s, slowest);
}

TEST(PlanAllocate, EqualsDynamicProgramOnRandomInstances) {
  constexpr std::uint64_t kSeed = 20260225;
  test::Random random(kSeed);
  int infeasible = 0;
  int idle = 0;
  for (int round = 0; round < 1000; ++round) {
    SCOPED_TRACE("seed " + std::to_string(kSeed) + ", round " + std::to_string(round));
    const Instance instance = random_instance(random);
    const auto allocation = allocate_degrees(instance.bins, instance.ranks, table_of(instance));
    const double expected = dynamic_program(instance);
    ASSERT_EQ(allocation.has_value(), expected != kNever);
    if (!allocation) {
      ++infeasible;
      continue;
    }
    EXPECT_EQ(allocation->slowest_s, expected);
    expect_allocation_is_valid(instance, *allocation);
    if (std::accumulate(allocation->degrees.begin(), allocation->degrees.end(), 0) < instance.ranks) ++idle;
  }
  // The random cases must reach both edges, or the test shows less than it says.
  EXPECT_GT(infeasible, 50);
  EXPECT_GT(idle, 50);
}

TEST(PlanAllocate, NoBins) {
  const auto allocation = allocate_degrees({}, 4, [](int, int) { return 1.0; });
  ASSERT_TRUE(allocation);
  EXPECT_TRUE(allocation->degrees.empty());
  EXPECT_EQ(allocation->slowest_s, 0.0);
}

TEST(PlanAllocate, LeavesRanksIdleThatHelpNobody) {
  const std::vector<DegreeLimits> bins = {{1, 8}, {1, 8}};
  // Bin 0 is slowest and cannot be helped; bin 1 needs nothing.
  const auto allocation =
      allocate_degrees(bins, 8, [](int bin, int degree) { return bin == 0 ? 5.0 + degree : 4.0 / degree; });
  ASSERT_TRUE(allocation);
  EXPECT_EQ(allocation->degrees, (std::vector{1, 1}));
  EXPECT_EQ(allocation->slowest_s, 6.0);
}

TEST(PlanAllocate, SkipsUselessDegrees) {
  const std::vector<DegreeLimits> bins = {{1, 6}};
  // Degree 2 is slower, 3 equal, 4 quicker, 5 and 6 slower again.
  const double seconds[] = {0.0, 9.0, 10.0, 9.0, 5.0, 6.0, 5.0};
  const auto allocation = allocate_degrees(bins, 6, [&](int, int degree) { return seconds[degree]; });
  ASSERT_TRUE(allocation);
  EXPECT_EQ(allocation->degrees, (std::vector{4}));
}

}  // namespace
}  // namespace dhp::plan::plan_allocate_test
