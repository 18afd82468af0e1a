// What cannot be walked is an InputError, whatever function is asked; never a wild read or write. Run under the
// address sanitizer (make test-sanitizers) this is a fuzz test of every function that takes a plan.

#include "dhp/bound.h"
#include "dhp/explain.h"
#include "dhp/metrics.h"
#include "dhp/trace.h"
#include "plan_support.h"
#include "random_case.h"

namespace dhp::contract_test {
namespace {

using test::Random;

/// One wrong thing, or several.
void spoil(Plan& plan, Cluster& cluster, Random& random) {
  const auto any = [&](auto& values) -> auto& {
    return values[static_cast<std::size_t>(random.whole(0, std::ssize(values) - 1))];
  };
  constexpr int kWild[] = {-2147483647, -1, 0, 1, 7, 50'000'000, 2'147'483'647};
  const int wild = kWild[random.whole(0, std::ssize(kWild) - 1)];
  if (plan.tasks.empty()) {
    plan.ranks = wild;
    return;
  }
  Task& task = any(plan.tasks);
  switch (random.whole(0, 9)) {
    case 0:
      task.id = wild;
      break;
    case 1:
      task.ranks.push_back(wild);
      break;
    case 2:
      if (!task.ranks.empty()) any(task.ranks) = wild;
      break;
    case 3:
      task.ranks.clear();
      break;
    case 4:
      task.micro_batch = wild;
      break;
    case 5:
      plan.ranks = wild;
      break;
    case 6:
      task.sequences.push_back(wild);
      break;
    case 7:
      plan.tasks.erase(plan.tasks.begin() + random.whole(0, std::ssize(plan.tasks) - 1));
      break;
    case 8:
      std::swap(any(plan.tasks), any(plan.tasks));
      break;
    default:
      cluster.rank_speed.assign(static_cast<std::size_t>(random.whole(0, 3)), 0.5);
  }
}

const TextSink nowhere = [](std::string_view) {};

/// Whether the action throws InputError; a failure if it throws anything else.
bool refuses(const std::string& name, const std::function<void()>& action) {
  try {
    action();
  } catch (const InputError&) {
    return true;
  } catch (const std::exception& error) {
    ADD_FAILURE() << name << ": " << error.what();
  }
  return false;
}

TEST(Contracts, PlansThatCannotBeWalkedAreRefused) {
  constexpr std::uint64_t kCases = 600;
  int refused = 0;
  for (std::uint64_t seed = 1; seed <= kCases; ++seed) {
    test::Case made = test::random_case(seed, seed % 2 == 0 ? "free" : "paper");
    made.options.effort = 1;
    PlanResult result = plan_batch(made.batch, made.cluster, made.cost, made.options);
    Plan* plan = std::get_if<Plan>(&result);
    if (plan == nullptr) continue;
    Simulation simulation = simulate(*plan, made.batch, made.cluster, made.cost, {.recorded_steps = 1});
    Random random(seed);
    for (std::int64_t times = random.whole(1, 3); times > 0; --times) spoil(*plan, made.cluster, random);
    const Batch& batch = made.batch;  // no structured binding: lambdas of clang 14 cannot name its parts
    const Cluster& cluster = made.cluster;
    const CostModel& cost = made.cost;
    const auto& options = made.options;
    SCOPED_TRACE("seed " + std::to_string(seed));
    const bool no_plan = refuses("shape", [&] { require_shape(*plan); });
    const bool no_cluster = refuses("shape", [&] { require_shape(*plan, cluster); });
    EXPECT_TRUE(no_cluster || !no_plan);
    refused += no_cluster ? 1 : 0;
    const SimulatedStep& step = simulation.steps.front();
    const auto walks = [&](const std::string& name, bool wrong, const std::function<void()>& action) {
      EXPECT_TRUE(refuses(name, action) || !wrong) << name;
    };
    walks("explain_plan", no_cluster, [&] { explain_plan(*plan, batch, cluster, cost); });
    walks("explain_tasks", no_cluster, [&] { explain_tasks(*plan, batch, cluster, cost, options); });
    walks("explain_changes", no_cluster, [&] { explain_changes(*plan, batch, cluster, cost, options); });
    walks("plan_metrics", no_cluster, [&] { plan_metrics(*plan, batch, cluster, cost); });
    walks("count_peers", no_plan, [&] { count_peers(*plan); });
    walks("simulate", no_cluster, [&] { simulate(*plan, batch, cluster, cost); });
    walks("rank_spans", no_cluster, [&] { rank_spans(*plan, cluster, step); });
    walks("memory_over_time", no_plan, [&] { memory_over_time(*plan, batch, cost, step); });
    walks("to_result", no_cluster, [&] { to_result(simulation, *plan, batch, cluster, cost); });
    walks("chrome_trace", no_cluster, [&] { chrome_trace(nowhere, simulation, *plan, batch, cluster, cost); });
    walks("rank_trace", no_cluster, [&] { rank_trace(nowhere, simulation, *plan, cluster, 0); });
    walks("to_json", false, [&] { to_json(*plan); });
    walks("check_plan", false, [&] { check_plan(*plan, batch, cluster, cost); });
    walks("check_options", no_cluster, [&] { check_options(*plan, batch, cluster, cost, options); });
    walks("annotate", no_cluster, [&] { annotate(*plan, batch, cluster, cost); });
    walks("certify", no_cluster, [&] { certify(*plan, batch, cluster, cost); });
    const std::vector<double> task_s(plan->tasks.size(), 1.0);
    walks("predict_task_seconds", no_plan, [&] { predict_task_seconds(*plan, batch, cluster, cost); });
    walks("replay", no_plan, [&] { replay(*plan, task_s); });
    walks("noisy_makespans", no_plan, [&] { noisy_makespans(*plan, batch, cluster, cost, {}, 0, 1); });
    walks("plan_hash", false, [&] { plan_hash(*plan, batch); });
  }
  EXPECT_GT(refused, 200);
}

TEST(Contracts, StepsOfAnotherPlanAreRefused) {
  const Cluster cluster = test::make_cluster(1, 4, 1000.0);
  const CostModel cost = test::make_cost();
  const Batch one = test::make_batch({100});
  const Batch many = test::make_batch({100, 200, 300, 50, 60});
  const Plan plan = test::plan_of(plan_batch(many, cluster, cost, {}));
  const Plan other = test::plan_of(plan_batch(one, cluster, cost, {}));
  const SimulatedStep step = simulate(other, one, cluster, cost, {.recorded_steps = 1}).steps.front();
  EXPECT_THROW(rank_spans(plan, cluster, step), InputError);
  EXPECT_THROW(memory_over_time(plan, many, cost, step), InputError);
  EXPECT_THROW(rank_trace(nowhere, {{step}, {}}, plan, cluster, 0), InputError);
  EXPECT_THROW(rank_trace(nowhere, {{step}, {}}, other, cluster, 4), InputError);
  EXPECT_THROW(rank_trace(nowhere, {{step}, {}}, other, cluster, -1), InputError);
  EXPECT_THROW(noisy_makespans(plan, one, cluster, cost, {}, 1, 1), InputError);
}

TEST(Contracts, ShapesAreNamed) {
  Plan plan{.schedule = Schedule::free, .ranks = 2, .tasks = {{.id = 0, .ranks = {0}}, {.id = 1, .ranks = {0, 1}}}};
  EXPECT_NO_THROW(require_shape(plan));
  const auto with = [&](const std::function<void(Task&)>& change) {
    Plan changed = plan;
    change(changed.tasks[1]);
    return test::input_error([&] { require_shape(changed); });
  };
  EXPECT_EQ(with([](Task& task) { task.id = 5; }), "plan: tasks[1].id: found 5, expected 1, its position");
  EXPECT_EQ(with([](Task& task) { task.ranks = {0, 2}; }), "plan: tasks[1].ranks: found 2, expected 0 to 1");
  EXPECT_EQ(with([](Task& task) {
              task.ranks = {1, 1};
            }),
            "plan: tasks[1].ranks: found 1, expected distinct ranks, but it stands there twice");
  EXPECT_EQ(with([](Task& task) { task.ranks = {}; }), "plan: tasks[1].ranks: found no rank, expected at least one");
  EXPECT_EQ(with([](Task& task) { task.micro_batch = -1; }),
            "plan: tasks[1].micro_batch: found -1, expected at least 0");
  EXPECT_EQ(test::input_error([&] { require_shape(plan, test::make_cluster(1, 4, 1.0)); }),
            "plan: ranks: found 2, expected 4, the ranks of the cluster");
}

/// Numbers of micro-batches may leave some out: none of them takes room.
TEST(Contracts, MicroBatchesMayHaveAnyNumber) {
  const Cluster cluster = test::make_cluster(1, 1, 1000.0);
  const CostModel cost = test::make_cost();
  const Batch batch = test::make_batch({10, 20});
  Plan plan{.schedule = Schedule::lockstep,
            .ranks = 1,
            .tasks = {{.id = 0, .ranks = {0}, .sequences = {0}},
                      {.id = 1, .ranks = {0}, .sequences = {1}, .micro_batch = 1}}};
  const std::vector<TaskReason> expected = explain_tasks(plan, batch, cluster, cost);
  plan.tasks[1].micro_batch = 2'000'000'000;
  test::expect_valid(plan, batch, cluster, cost);
  const std::vector<TaskReason> reasons = explain_tasks(plan, batch, cluster, cost);
  ASSERT_EQ(reasons.size(), 2U);
  EXPECT_EQ(reasons[1].degree, expected[1].degree);
}

TEST(Contracts, OptionsAreCheckedFirst) {
  const Cluster cluster = test::make_cluster(1, 2, 1000.0);
  const CostModel cost = test::make_cost();
  const Batch batch = test::make_batch({100, 50});
  const Plan plan = test::plan_of(plan_batch(batch, cluster, cost, {}));
  const PlanOptions zero{.min_shard_tokens = 0};
  EXPECT_THROW(check_options(plan, batch, cluster, cost, zero), InputError);
  EXPECT_THROW(explain_tasks(plan, batch, cluster, cost, zero), InputError);
  EXPECT_THROW(explain_changes(plan, batch, cluster, cost, {.degrees_divide = {0}}), InputError);
}

/// Nothing takes any time: no bound to divide by. Under the sanitizer for undefined behaviour 0 / 0 would show.
TEST(Contracts, ACostOfNothingIsPlanned) {
  CostModel cost;
  cost.token_bytes = 1.0;
  const Cluster cluster = test::make_cluster(32, 8, 10.0);
  const Batch batch = test::make_batch({2000, 1500, 3, 4, 5});
  const Plan plan = test::plan_of(plan_batch(batch, cluster, cost, {}));
  test::expect_valid(plan, batch, cluster, cost);
}

TEST(Contracts, ManyStepsKeepSummariesAlone) {
  const Cluster cluster = test::make_cluster(2, 4, 1000.0);
  const CostModel cost = test::make_cost();
  const Batch batch = test::make_batch({100, 200, 300, 50, 60});
  const Plan plan = test::plan_of(plan_batch(batch, cluster, cost, {}));
  constexpr int kSteps = 120'000;
  const Simulation simulation = simulate(plan, batch, cluster, cost, {.steps = kSteps, .noise = {0.1, 0.0, 0.0}});
  ASSERT_EQ(simulation.steps.size(), std::size_t{kSteps});
  EXPECT_FALSE(simulation.steps.front().tasks.empty());
  EXPECT_TRUE(simulation.steps.back().tasks.empty());
  EXPECT_TRUE(simulation.steps.back().ranks.empty());
  EXPECT_EQ(simulation.steps.back().tasks.capacity() + simulation.steps.back().ranks.capacity(), 0U);
  EXPECT_GT(simulation.steps.back().idle.total_s(), 0.0);
  const std::string late =
      "step: has neither tasks nor ranks: it is a late step of which simulate() has kept the sums alone; ask it to "
      "record as many steps (recorded_steps)";
  EXPECT_EQ(test::input_error([&] { rank_spans(plan, cluster, simulation.steps.back()); }), late);
  EXPECT_EQ(test::input_error([&] { memory_over_time(plan, batch, cost, simulation.steps.back()); }), late);
  double compute_s = 0.0;
  std::size_t rows = 0;
  for (const SimulatedStep& step : simulation.steps) rows += step.tasks.size() + step.ranks.size();
  EXPECT_LT(rows, 1'000'100U);
  for (const SimulatedRank& rank : simulation.rank_totals) compute_s += rank.compute_s;
  double busy_s = 0.0;  // of all steps: ranks x time that is not idle
  for (const SimulatedStep& step : simulation.steps) busy_s += step.seconds * cluster.ranks() - step.idle.total_s();
  test::expect_relative(compute_s, busy_s, 1e-9);
}

}  // namespace
}  // namespace dhp::contract_test
