// Mean makespans over scenarios of errors: against a plain replay in double precision, and against other draws.
#include "plan/scenarios.h"

#include <cmath>
#include <iostream>

#include "dhp/metrics.h"
#include "random_case.h"

namespace dhp::plan {
namespace {

struct Timed {
  std::vector<double> task_s;
  double makespan_s = 0.0;
};
Timed timed(const test::Case& made, const Plan& plan) {
  Timed result{predict_task_seconds(plan, made.batch, made.cluster, made.cost)};
  result.makespan_s = replay(plan, result.task_s).makespan_s;
  return result;
}

test::Case sorted_case(std::uint64_t seed, const std::string& planner) {
  test::Case made = test::random_case(seed, planner);
  std::sort(made.batch.sequences.begin(), made.batch.sequences.end(),
            [](const Sequence& a, const Sequence& b) { return a.id < b.id; });
  return made;
}

/// One scenario after the other, with replay().
double plain_expected_s(const Scenarios& scenarios, const test::Case& made, const Plan& plan, const Timed& exact) {
  double sum = 0.0;
  for (std::size_t s = 0; s < Scenarios::kCount; ++s) {
    std::vector<double> took;
    std::size_t member = 0;
    for (std::size_t t = 0; t < plan.tasks.size(); ++t) {
      double weighted = 0.0;
      double weights = 0.0;
      for (const std::int64_t id : plan.tasks[t].sequences) {
        std::size_t place = 0;
        while (made.batch.sequences[place].id != id) ++place;
        const Load load = load_of(std::span(&made.batch.sequences[place], 1));
        const double alone_s = task_seconds(made.cost, made.cluster, load, GroupShape{}, Exchange::ring);
        weighted += alone_s * static_cast<double>(scenarios.of_sequence(place)[s]);
        weights += alone_s;
      }
      double slowest = 0.0;
      for (int i = 0; i < plan.tasks[t].degree(); ++i) {
        slowest = std::max(slowest, static_cast<double>(scenarios.of_rank(member++)[s]));
      }
      const double mean = weights > 0.0 ? weighted / weights : 1.0;
      took.push_back(exact.task_s[t] * mean * static_cast<double>(scenarios.of_task(t)[s]) * slowest);
    }
    sum += replay(plan, took).makespan_s;
  }
  return sum / Scenarios::kCount;
}

TEST(Scenarios, EqualPlainReplays) {
  const ErrorSizes sizes[] = {{0.3, 0.0, 0.0}, {0.0, 0.2, 0.0}, {0.0, 0.0, 0.1}, {0.02, 0.02, 0.01}, {1.0, 1.0, 1.0}};
  const std::uint64_t first = test::first_seed(1);
  std::cout << "from seed " << first << " on\n";
  for (std::uint64_t seed = first; seed < first + test::share_of(200); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const test::Case made = sorted_case(seed, seed % 2 == 0 ? "static" : "paper");
    const PlanResult result = plan_batch(made.batch, made.cluster, made.cost, made.options);
    const Plan* plan = std::get_if<Plan>(&result);
    if (plan == nullptr || plan->tasks.empty()) continue;
    const Scenarios scenarios(sizes[seed % std::size(sizes)], made.batch, made.cluster, made.cost);
    const Timed exact = timed(made, *plan);
    const double expected_s = scenarios.expected_s(*plan, exact.task_s, exact.makespan_s);
    test::expect_relative(expected_s, plain_expected_s(scenarios, made, *plan, exact), 2e-5);
    EXPECT_EQ(expected_s, Scenarios(sizes[seed % std::size(sizes)], made.batch, made.cluster, made.cost)
                              .expected_s(*plan, exact.task_s, exact.makespan_s));
  }
}

TEST(Scenarios, WithoutErrorsTheMakespan) {
  const test::Case made = sorted_case(3, "static");
  const Plan plan = std::get<Plan>(plan_batch(made.batch, made.cluster, made.cost, {.planner = "static"}));
  const Timed exact = timed(made, plan);
  const Scenarios none({0.0, 0.0, 0.0}, made.batch, made.cluster, made.cost);
  test::expect_relative(none.expected_s(plan, exact.task_s, exact.makespan_s), exact.makespan_s, 1e-5);
}

TEST(Scenarios, FactorsHaveMeanOneAndTheirSize) {
  Batch batch;
  for (int i = 0; i < 1200; ++i) batch.sequences.push_back({i, 100, 0});
  const CostModel cost = test::random_case(1, "static").cost;
  for (const double size : {0.01, 0.1, 0.5}) {
    const Scenarios scenarios({size, size, size}, batch, {}, cost);
    for (const auto& row_of : {&Scenarios::of_sequence, &Scenarios::of_task, &Scenarios::of_rank}) {
      double sum = 0.0;
      double logs = 0.0;
      double squares = 0.0;
      for (std::size_t row = 0; row < Scenarios::kRows; ++row) {
        for (const float factor : (scenarios.*row_of)(row)) {
          const double log = std::log(static_cast<double>(factor));
          sum += static_cast<double>(factor);
          logs += log;
          squares += log * log;
        }
      }
      constexpr double kCount = Scenarios::kRows * Scenarios::kCount;
      EXPECT_NEAR(sum / kCount, 1.0, 0.02 * size);
      EXPECT_NEAR(logs / kCount, -size * size / 2, 1e-3 * size);  // pairs of signs cancel
      EXPECT_NEAR(std::sqrt(squares / kCount - logs * logs / kCount / kCount), size, 0.03 * size);
    }
    EXPECT_EQ(scenarios.of_sequence(5), scenarios.of_sequence(5 + Scenarios::kRows));
    EXPECT_NE(scenarios.of_sequence(5), scenarios.of_task(5));
    const Scenarios others({size, size, size}, batch, {}, cost, 255);
    for (const auto& row_of : {&Scenarios::of_sequence, &Scenarios::of_task, &Scenarios::of_rank}) {
      EXPECT_EQ((others.*row_of)(5), (scenarios.*row_of)(260));
      EXPECT_EQ((others.*row_of)(1000), (scenarios.*row_of)(1000 + 255 - Scenarios::kRows));
    }
  }
}

/// Other draws, many more of them.
TEST(Scenarios, ExpectWhatNoisyMakespansExpect) {
  const test::Case made = sorted_case(14, "static");
  const Plan plan = std::get<Plan>(plan_batch(made.batch, made.cluster, made.cost, {.planner = "static"}));
  const Timed exact = timed(made, plan);
  for (const ErrorSizes& sizes : {ErrorSizes{0.1, 0.0, 0.0}, {0.0, 0.1, 0.0}, {0.0, 0.0, 0.1}}) {
    const Scenarios scenarios(sizes, made.batch, made.cluster, made.cost);
    double sum = 0.0;
    const std::vector<double> makespans = noisy_makespans(plan, made.batch, made.cluster, made.cost, sizes, 2000, 5);
    for (const double makespan : makespans) sum += makespan / 2000;
    EXPECT_NEAR(scenarios.expected_s(plan, exact.task_s, exact.makespan_s) / sum, 1.0, 0.02) << to_text(sizes);
  }
}

}  // namespace
}  // namespace dhp::plan
