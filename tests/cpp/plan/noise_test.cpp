// Errors of task times: what shares one, how large they are, and what they do to a step.
#include <cmath>
#include <numeric>

#include "dhp/metrics.h"
#include "plan_support.h"

namespace dhp::noise_test {
namespace {

constexpr ErrorSizes kNone{0.0, 0.0, 0.0};

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

/// Three ranks; task 0 has two sequences on two ranks, tasks 1 and 2 one each.
struct Made {
  Cluster cluster = test::make_cluster(1, 3, 1e6);
  CostModel cost = test::seconds_by_length();
  Batch batch{.sequences = {{9, 300, 0}, {2, 500, 0}, {4, 100, 0}, {7, 200, 0}}};
  Plan plan = test::make_plan(
      3, {test::make_task(0, {0, 1}, {4, 9}), test::make_task(1, {1}, {2}), test::make_task(2, {2}, {7})});

  std::vector<double> factors(const ErrorSizes& noise, int trial) const {
    return noise_factors(plan, batch, cluster, cost, noise, 7, trial);
  }
  std::vector<double> makespans(const ErrorSizes& noise, int trials, std::uint64_t seed = 7) const {
    return noisy_makespans(plan, batch, cluster, cost, noise, trials, seed);
  }
};

TEST(Noise, IsThatOfAPythonProgram) {
  // tests/golden/make_random_draws.py draws alike: streams 0, 1, 2 are sequences, tasks and ranks.
  const std::vector<std::vector<double>> expected = {{0.9810256112531, 0.9101060578397859},
                                                     {1.0732190843204847, 0.7985740924463891}};
  const Made made;
  for (std::size_t trial = 0; trial < expected.size(); ++trial) {
    const std::vector<double> factors = made.factors({0.08, 0.05, 0.03}, static_cast<int>(trial));
    for (std::size_t task = 0; task < 2; ++task) test::expect_relative(factors[task], expected[trial][task], 1e-12);
  }
}

TEST(Noise, FactorsAreThoseOfTheLogNormal) {
  constexpr int kTrials = 20'000;
  const Made made;
  const auto check = [&](const ErrorSizes& noise, std::size_t task, double size) {
    double sum = 0.0;
    double logs = 0.0;
    double squares = 0.0;
    for (int trial = 0; trial < kTrials; ++trial) {
      const double factor = made.factors(noise, trial)[task];
      sum += factor / kTrials;
      logs += std::log(factor) / kTrials;
      squares += std::log(factor) * std::log(factor) / kTrials;
    }
    EXPECT_NEAR(sum, 1.0, 0.0085);  // six standard errors
    EXPECT_NEAR(std::sqrt(squares - logs * logs), size, 0.006);
  };
  check({0.2, 0.0, 0.0}, 1, 0.2);
  check({0.0, 0.2, 0.0}, 0, 0.2);
  check({0.0, 0.0, 0.2}, 2, 0.2);
  check({0.1, 0.1, 0.1}, 1, std::sqrt(0.03));
  // Two sequences with a quarter and three quarters of the work: nearly log-normal, as they are small.
  check({0.2, 0.0, 0.0}, 0, 0.2 * std::sqrt(0.25 * 0.25 + 0.75 * 0.75));
}

TEST(Noise, TheSlowestRankCounts) {
  const Made made;
  const double slower_of_two = 0.1 / std::sqrt(std::acos(-1.0));  // mean of the larger of two normal numbers
  double sum = 0.0;
  for (int trial = 0; trial < 20'000; ++trial) sum += made.factors({0.0, 0.0, 0.1}, trial)[0] / 20'000;
  EXPECT_NEAR(sum, 1.0 + slower_of_two, 0.005);
}

TEST(Noise, ASequenceErrsAlikeInEveryPlan) {
  const Made made;
  Made other = made;
  std::reverse(other.batch.sequences.begin(), other.batch.sequences.end());
  other.plan = test::make_plan(3, {test::make_task(0, {2}, {2}), test::make_task(1, {0}, {7, 4, 9})});
  const ErrorSizes by_sequence{0.3, 0.0, 0.0};
  EXPECT_EQ(other.factors(by_sequence, 5)[0], made.factors(by_sequence, 5)[1]);
  EXPECT_NE(made.factors(by_sequence, 5)[1], made.factors(by_sequence, 6)[1]);
  const ErrorSizes by_task{0.0, 0.3, 0.0};
  EXPECT_EQ(other.factors(by_task, 5)[0], made.factors(by_task, 5)[0]);
}

TEST(Noise, MakespansAreReplaysOfTheFactors) {
  const Made made;
  const ErrorSizes noise{0.1, 0.2, 0.3};
  const std::vector<double> task_s = predict_task_seconds(made.plan, made.batch, made.cluster, made.cost);
  const std::vector<double> makespans = made.makespans(noise, 9);
  for (int trial = 0; trial < 9; ++trial) {
    std::vector<double> took = task_s;
    for (std::size_t task = 0; task < took.size(); ++task) took[task] *= made.factors(noise, trial)[task];
    EXPECT_EQ(makespans[static_cast<std::size_t>(trial)], replay(made.plan, took).makespan_s);
  }
  EXPECT_EQ(made.makespans(kNone, 2), std::vector<double>(2, replay(made.plan, task_s).makespan_s));
  EXPECT_TRUE(made.makespans(noise, 0).empty());
  EXPECT_NE(made.makespans(noise, 2, 8), made.makespans(noise, 2));
}

TEST(Noise, BarriersCostWhatTheSlowestOfEveryMicroBatchAdds) {
  // Two ranks, four rounds of equal tasks: with barriers every round waits for the slower of two, without them only the
  // end does.
  std::vector<Task> tasks;
  for (int i = 0; i < 8; ++i) tasks.push_back(test::make_task(i, {i % 2}, {i}, i / 2));
  const Batch batch = test::make_batch(std::vector<std::int64_t>(8, 100));  // a second each
  const auto expected = [&](Schedule schedule) {
    return mean(noisy_makespans(test::make_plan(2, tasks, schedule), batch, test::make_cluster(1, 2, 1e6),
                                test::seconds_by_length(), {0.0, 0.1, 0.0}, 4000, 3));
  };
  const double slower_of_two = 0.1 / std::sqrt(std::acos(-1.0));
  EXPECT_NEAR(expected(Schedule::lockstep), 4 + 4 * slower_of_two, 0.02);
  EXPECT_NEAR(expected(Schedule::free), 4 + 2 * slower_of_two, 0.02);  // sums of four have twice the deviation
}

TEST(Noise, RefusesWhatMakesNoSense) {
  Made made;
  EXPECT_THROW(made.makespans({-0.1, 0.0, 0.0}, 1), InputError);
  EXPECT_THROW(made.makespans({0.0, 0.0, 1.1}, 1), InputError);
  EXPECT_THROW(made.factors({0.0, 1.1, 0.0}, 1), InputError);
  EXPECT_THROW(made.makespans(kNone, -1), std::invalid_argument);
  made.batch.sequences.pop_back();
  EXPECT_THROW(made.makespans(kNone, 1), InputError);
}

}  // namespace
}  // namespace dhp::noise_test
