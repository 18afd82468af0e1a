// simulate() against the closed form and replay() where nothing is shared, and against figures worked out by hand.

#include "dhp/simulator.h"

#include <algorithm>
#include <numeric>

#include "dhp/metrics.h"
#include "plan_support.h"
#include "random_case.h"

namespace dhp::simulator_test {
namespace {

using test::expect_relative;

constexpr double kTolerance = 1e-9;  // relative

Task task(int id, std::vector<Rank> ranks, std::vector<std::int64_t> sequences, Exchange exchange = Exchange::ring,
          int micro_batch = 0) {
  return {.id = id,
          .ranks = std::move(ranks),
          .sequences = std::move(sequences),
          .micro_batch = micro_batch,
          .exchange = exchange,
          .start_s = {},
          .end_s = {}};
}

/// Nothing but what the test adds costs anything.
CostModel no_cost() {
  CostModel cost;
  cost.name = "nothing";
  cost.layers = 1;
  cost.query_heads = 8;
  cost.kv_heads = 8;
  cost.token_bytes = 1.0;
  return cost;
}

/// Two nodes whose ranks send 10 bytes a second each to the other node.
Cluster two_nodes(int ranks_per_node) {
  Cluster cluster;
  cluster.nodes = 2;
  cluster.ranks_per_node = ranks_per_node;
  cluster.memory_bytes = 1e6;
  cluster.intra_node = {1e9, 0.0, 1};
  cluster.inter_node = {10.0, 0.0, 1};
  return cluster;
}

/// A plan of the case, tasks shuffled and exchanged at random; nothing where there is no plan.
std::optional<Plan> random_plan(const test::Case& made, std::uint64_t seed) {
  PlanResult result = plan_batch(made.batch, made.cluster, made.cost, made.options);
  auto* plan = std::get_if<Plan>(&result);
  if (plan == nullptr) return std::nullopt;
  test::Random random(seed);
  constexpr Exchange kExchanges[] = {Exchange::ring, Exchange::direct, Exchange::hierarchical};
  for (Task& task : plan->tasks) {
    if (task.exchange != Exchange::all_to_all) task.exchange = kExchanges[random.whole(0, 2)];
    for (std::size_t i = task.ranks.size(); i-- > 1;) {
      std::swap(task.ranks[i], task.ranks[static_cast<std::size_t>(random.whole(0, static_cast<std::int64_t>(i)))]);
    }
  }
  return *plan;
}

void expect_closed_form(const SimulatedStep& step, const Plan& plan, const std::vector<double>& task_s) {
  const Timeline timeline = replay(plan, task_s);
  const double rounding_s = kTolerance * timeline.makespan_s;
  for (std::size_t i = 0; i < task_s.size(); ++i) {
    EXPECT_NEAR(step.tasks[i].start_s, timeline.start_s[i], rounding_s) << "task " << i;
    EXPECT_NEAR(step.tasks[i].end_s - step.tasks[i].start_s, task_s[i],
                kTolerance * task_s[i] + 1e-14 * timeline.makespan_s)
        << "task " << i;
  }
  EXPECT_NEAR(step.tasks_end_s, timeline.makespan_s, rounding_s);
}

constexpr const char* kPlanners[] = {"free",    "lockstep",        "paper",           "static", "balanced-static",
                                     "ulysses", "megatron-hybrid", "megatron-dynamic"};

TEST(Simulator, EqualsTheClosedFormWhereNothingIsShared) {
  int plans = 0;
  int wide = 0;
  for (std::uint64_t seed = 1; seed <= 600; ++seed) {
    const test::Case made = test::random_case(seed, kPlanners[seed % std::size(kPlanners)]);
    const auto plan = random_plan(made, seed);
    if (!plan) continue;
    SCOPED_TRACE("seed " + std::to_string(seed));
    ++plans;
    const std::vector<double> task_s = predict_task_seconds(*plan, made.batch, made.cluster, made.cost);
    const Simulation simulation = simulate(*plan, made.batch, made.cluster, made.cost);
    expect_closed_form(simulation.steps.front(), *plan, task_s);
    for (const Task& one : plan->tasks) wide += one.degree() > 2;
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GT(plans, 300);
  EXPECT_GT(wide, 300);
}

TEST(Simulator, SharedLinksThatCarryEveryRankChangeNothing) {
  int crossing = 0;
  for (std::uint64_t seed = 1; seed <= 600; ++seed) {
    test::Case made = test::random_case(seed, kPlanners[seed % std::size(kPlanners)]);
    const auto plan = random_plan(made, seed);
    if (!plan) continue;
    SCOPED_TRACE("seed " + std::to_string(seed));
    const std::vector<double> task_s = predict_task_seconds(*plan, made.batch, made.cluster, made.cost);
    // 1e-12: sums of many shares may be rounded past the limit.
    const double of_rank = made.cluster.inter_node.bandwidth_bytes_per_s * (1 + 1e-12);
    made.cluster.node_bandwidth_bytes_per_s = of_rank * made.cluster.ranks_per_node;
    if (seed % 2 == 0) made.cluster.switch_bandwidth_bytes_per_s = of_rank * made.cluster.ranks();
    const Simulation simulation = simulate(*plan, made.batch, made.cluster, made.cost);
    expect_closed_form(simulation.steps.front(), *plan, task_s);
    crossing += simulation.steps.front().crossing_bytes > 0.0;
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GT(crossing, 100);
}

TEST(Simulator, LimitsNeverMakeATaskQuicker) {
  int slower = 0;
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    test::Case made = test::random_case(seed, kPlanners[seed % std::size(kPlanners)]);
    const auto plan = random_plan(made, seed);
    if (!plan) continue;
    SCOPED_TRACE("seed " + std::to_string(seed));
    const std::vector<double> task_s = predict_task_seconds(*plan, made.batch, made.cluster, made.cost);
    made.cluster.node_bandwidth_bytes_per_s = made.cluster.inter_node.bandwidth_bytes_per_s * 0.7;
    made.cluster.switch_bandwidth_bytes_per_s = made.cluster.inter_node.bandwidth_bytes_per_s * 1.3;
    const SimulatedStep step = simulate(*plan, made.batch, made.cluster, made.cost).steps.front();
    for (std::size_t i = 0; i < task_s.size(); ++i) {
      const double seconds = step.tasks[i].end_s - step.tasks[i].start_s;
      EXPECT_GE(seconds, task_s[i] * (1 - kTolerance) - 1e-14 * step.seconds);
      slower += seconds > task_s[i] * 1.01;
    }
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GT(slower, 100);
}

// Each of two tasks hands 100 bytes to the other node and gets 100: 10 s alone, at 10 bytes a second.
struct TwoTasks : testing::Test {
  TwoTasks() {
    cost.forward.ring_bytes_per_token = 1.0;
    batch = test::make_batch({200, 200});
    plan = test::make_plan(4, {task(0, {0, 2}, {0}), task(1, {1, 3}, {1})});
  }
  SimulatedStep step() const { return simulate(plan, batch, cluster, cost).steps.front(); }

  CostModel cost = no_cost();
  Cluster cluster = two_nodes(2);
  Batch batch;
  Plan plan;
};

TEST_F(TwoTasks, TakeTenSecondsEachOnTheirOwnLinks) {
  EXPECT_DOUBLE_EQ(step().tasks[0].end_s, 10.0);
  EXPECT_DOUBLE_EQ(step().tasks[1].end_s, 10.0);
}

TEST_F(TwoTasks, TakeTwiceAsLongThroughOneNic) {
  cluster.node_bandwidth_bytes_per_s = 10.0;
  EXPECT_DOUBLE_EQ(step().tasks[0].end_s, 20.0);
  EXPECT_DOUBLE_EQ(step().tasks[1].end_s, 20.0);
  EXPECT_DOUBLE_EQ(step().ranks[0].idle.transfer_s, 20.0);
}

TEST_F(TwoTasks, TheShorterLeavesTheNicToTheLonger) {
  cluster.node_bandwidth_bytes_per_s = 10.0;
  batch = test::make_batch({200, 100});
  // 5 bytes a second each: the second has its 50 bytes at 10 s; the first has 50 left for 10 bytes a second.
  EXPECT_DOUBLE_EQ(step().tasks[1].end_s, 10.0);
  EXPECT_DOUBLE_EQ(step().tasks[0].end_s, 15.0);
}

TEST_F(TwoTasks, TheLaterOneFindsTheNicInUse) {
  cluster.node_bandwidth_bytes_per_s = 10.0;
  cost.forward.token_s = 0.04;  // seconds of computing before: 4 s for 200 tokens on two ranks, 8 s for 400
  batch = test::make_batch({200, 400});
  // First: alone from 4 to 8 s (40 bytes), shared from 8 s on (60 bytes at 5): 20 s. Second: 60 of its 200 bytes by
  // then, 140 at 10 bytes a second: 34 s.
  EXPECT_DOUBLE_EQ(step().tasks[0].end_s, 20.0);
  EXPECT_DOUBLE_EQ(step().tasks[1].end_s, 34.0);
}

TEST_F(TwoTasks, AttentionHidesWhatContentionAdds) {
  cluster.node_bandwidth_bytes_per_s = 10.0;
  cost.forward.step_s = 20.0;
  EXPECT_DOUBLE_EQ(step().tasks[0].end_s, 40.0);
  EXPECT_DOUBLE_EQ(step().tasks[0].exposed_s, 0.0);
  EXPECT_DOUBLE_EQ(step().tasks[0].transfer_s, 20.0);
  cost.forward.step_s = 12.0;  // 8 s of the transfer show
  EXPECT_DOUBLE_EQ(step().tasks[0].end_s, 32.0);
  EXPECT_DOUBLE_EQ(step().tasks[0].exposed_s, 8.0);
}

TEST_F(TwoTasks, LatencyUsesNoNic) {
  cluster.node_bandwidth_bytes_per_s = 10.0;
  cluster.inter_node.latency_s = 3.0;
  EXPECT_DOUBLE_EQ(step().tasks[0].end_s, 3.0 + 20.0 + 3.0);  // the backward pass sends nothing, and waits for it
}

TEST_F(TwoTasks, TheSwitchIsSharedByBothDirections) {
  cluster.switch_bandwidth_bytes_per_s = 10.0;  // four streams want 10 each
  EXPECT_DOUBLE_EQ(step().tasks[0].end_s, 40.0);
  plan.tasks.pop_back();
  batch = test::make_batch({200});
  EXPECT_DOUBLE_EQ(step().tasks[0].end_s, 20.0);
}

TEST_F(TwoTasks, NumbersTooSmallToDivideEndOrAreRefused) {
  cluster.node_bandwidth_bytes_per_s = 10.0;
  const Plan pairs = plan;
  plan = test::make_plan(4, {task(0, {0, 2, 3}, {0}, Exchange::hierarchical)});
  batch = test::make_batch({3});
  cost.forward.ring_bytes_per_token = 5e-324;  // a shard, of which half crosses: nothing, in no time
  EXPECT_LT(step().seconds, 1e-300);
  plan = pairs;
  batch = test::make_batch({200, 200});
  cost.forward.ring_bytes_per_token = 1.0;
  cluster.node_bandwidth_bytes_per_s = 5e-324;  // of which each gets half: nothing
  EXPECT_NE(test::input_error([&] { step(); }).find("longer"), std::string::npos);
}

TEST(Simulator, ARankCountsOnceHoweverItsGroupIsShaped) {
  // Ring 0 3 1 4: two ranks of each node send to the other node. Ring 2 5: one. Of 10 bytes a second each gets a third.
  CostModel cost = no_cost();
  cost.forward.ring_bytes_per_token = 1.0;
  Cluster cluster = two_nodes(3);
  cluster.node_bandwidth_bytes_per_s = 10.0;
  const Batch batch = test::make_batch({4000, 200});
  const Plan plan = test::make_plan(6, {task(0, {0, 3, 1, 4}, {0}), task(1, {2, 5}, {1})});
  const SimulatedStep step = simulate(plan, batch, cluster, cost).steps.front();
  EXPECT_NEAR(step.tasks[1].end_s, 30.0, 1e-9);
  // First: 3 steps of 2 x 1000 bytes a node. 200 bytes by 30 s, the other 5,800 at 10 a second.
  EXPECT_NEAR(step.tasks[0].end_s, 610.0, 1e-9);
}

TEST(Simulator, HierarchicalCrossesOnceADirectOneOftener) {
  CostModel cost = no_cost();
  cost.forward.ring_bytes_per_token = 1.0;
  cost.backward.ring_bytes_per_token = 2.0;
  const Cluster cluster = two_nodes(3);
  const Batch batch = test::make_batch({600});  // 100 and 200 bytes a shard
  const auto moved = [&](Exchange exchange, std::vector<Rank> ranks) {
    const Plan plan = test::make_plan(6, {task(0, std::move(ranks), {0}, exchange)});
    return simulate(plan, batch, cluster, cost).steps.front();
  };
  const std::vector<Rank> all = {0, 1, 2, 3, 4, 5};
  for (const Exchange exchange : {Exchange::ring, Exchange::direct, Exchange::hierarchical}) {
    EXPECT_DOUBLE_EQ(moved(exchange, all).shard_bytes, 6 * 5 * 300.0) << to_string(exchange);
  }
  EXPECT_DOUBLE_EQ(moved(Exchange::ring, all).crossing_bytes, 2 * 5 * 300.0);                 // two hops, five steps
  EXPECT_DOUBLE_EQ(moved(Exchange::ring, {0, 3, 1, 4, 2, 5}).crossing_bytes, 6 * 5 * 300.0);  // every hop
  EXPECT_DOUBLE_EQ(moved(Exchange::direct, all).crossing_bytes, 6 * 3 * 300.0);
  EXPECT_DOUBLE_EQ(moved(Exchange::hierarchical, all).crossing_bytes, 6 * 300.0);
}

TEST(Simulator, BytesAreThoseOfTheFormula) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    test::Case made = test::random_case(seed, kPlanners[seed % std::size(kPlanners)]);
    const auto plan = random_plan(made, seed);
    if (!plan) continue;
    SCOPED_TRACE("seed " + std::to_string(seed));
    if (seed % 2 == 0) made.cluster.node_bandwidth_bytes_per_s = made.cluster.inter_node.bandwidth_bytes_per_s;
    const SimulatedStep step = simulate(*plan, made.batch, made.cluster, made.cost).steps.front();
    double shards = 0.0;
    for (const Task& one : plan->tasks) {
      double tokens = 0.0;
      for (const Sequence& sequence : made.batch.sequences) {
        if (std::count(one.sequences.begin(), one.sequences.end(), sequence.id) > 0) {
          tokens += static_cast<double>(sequence.tokens);
        }
      }
      const double d = one.degree();
      const PassCost& forward = made.cost.forward;
      const PassCost& backward = made.cost.backward;
      if (one.exchange == Exchange::all_to_all) {
        shards += (forward.all_to_all_bytes_per_token + backward.all_to_all_bytes_per_token) * tokens * (d - 1) / d;
      } else {
        shards += (forward.ring_bytes_per_token + backward.ring_bytes_per_token) * tokens * (d - 1);
      }
    }
    expect_relative(step.shard_bytes, shards, 1e-9);
    EXPECT_LE(step.crossing_bytes, step.shard_bytes * (1 + 1e-12));
    if (testing::Test::HasFailure()) return;
  }
}

TEST(Simulator, TheTimeOfEveryRankAddsUpToTheStep) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    test::Case made = test::random_case(seed, kPlanners[seed % std::size(kPlanners)]);
    const auto plan = random_plan(made, seed);
    if (!plan) continue;
    SCOPED_TRACE("seed " + std::to_string(seed));
    made.cluster.node_bandwidth_bytes_per_s = made.cluster.inter_node.bandwidth_bytes_per_s;
    const std::vector<double> task_s = predict_task_seconds(*plan, made.batch, made.cluster, made.cost);
    const double typical_s = replay(*plan, task_s).makespan_s;
    made.cost.optimizer_s = typical_s / 7;
    made.cost.gradient_bytes = 1e3;
    const SimulateOptions options{.planning_s = seed % 3 == 0 ? typical_s * 3 : 0.0, .recorded_steps = 1};
    const SimulatedStep step = simulate(*plan, made.batch, made.cluster, made.cost, options).steps.front();
    std::vector<IdleTime> from_spans(step.ranks.size());
    for (const ResultSpan& span : rank_spans(*plan, made.cluster, step)) {
      IdleTime& idle = from_spans[static_cast<std::size_t>(span.rank)];
      const double seconds = span.end_s - span.start_s;
      EXPECT_GT(seconds, 0.0);
      if (span.kind == ResultSpan::Kind::peer) idle.peer_s += seconds;
      if (span.kind == ResultSpan::Kind::transfer) idle.transfer_s += seconds;
      if (span.kind == ResultSpan::Kind::data) idle.data_s += seconds;
    }
    const double rounding_s = kTolerance * step.seconds;
    for (const Rank rank : made.cluster.live_ranks()) {
      const SimulatedRank& at = step.ranks[static_cast<std::size_t>(rank)];
      EXPECT_NEAR(at.compute_s + at.idle.total_s() + at.reduce_s + at.optimizer_s, step.seconds, rounding_s);
      const IdleTime& spans = from_spans[static_cast<std::size_t>(rank)];
      EXPECT_NEAR(at.idle.peer_s, spans.peer_s, rounding_s);
      EXPECT_NEAR(at.idle.transfer_s, spans.transfer_s, rounding_s);
      EXPECT_NEAR(at.idle.data_s, spans.data_s, rounding_s);
      EXPECT_GE(at.transfer_s, at.idle.transfer_s - rounding_s);
      for (const double idle_s : {at.idle.peer_s, at.idle.transfer_s, at.idle.data_s, at.idle.no_task_s}) {
        EXPECT_GE(idle_s, 0.0) << "not even by rounding: readers of results refuse it";
      }
    }
    if (testing::Test::HasFailure()) return;
  }
}

TEST(Simulator, NoiseIsThatOfNoisyMakespans) {
  const test::Case made = test::random_case(12, "free");
  const PlanResult result = plan_batch(made.batch, made.cluster, made.cost, made.options);
  const Plan& plan = std::get<Plan>(result);
  const ErrorSizes noise{0.2, 0.1, 0.1};
  const std::vector<double> expected = noisy_makespans(plan, made.batch, made.cluster, made.cost, noise, 5, 3);
  const Simulation noisy = simulate(plan, made.batch, made.cluster, made.cost, {.steps = 5, .noise = noise, .seed = 3});
  const Simulation again = simulate(plan, made.batch, made.cluster, made.cost, {.steps = 5, .noise = noise, .seed = 3});
  for (std::size_t i = 0; i < expected.size(); ++i) {
    expect_relative(noisy.steps[i].seconds, expected[i], 1e-9);
    EXPECT_EQ(noisy.steps[i].seconds, again.steps[i].seconds);
  }
  EXPECT_NE(noisy.steps[0].seconds, noisy.steps[1].seconds);
}

TEST(Simulator, ReductionOptimizerAndPlanningEndAStep) {
  // Two nodes of two: 60 bytes inside at 30 a second, half of them each way; across each rank sends 2 * 1/2 * 60 / 2.
  Cluster cluster = two_nodes(2);
  cluster.intra_node = {30.0, 0.5, 1};
  cluster.inter_node = {10.0, 0.25, 1};
  cluster.rank_speed = {1.0, 1.0, 1.0, 0.5};
  CostModel cost = no_cost();
  cost.task_s = 2.0;
  cost.gradient_bytes = 60.0;
  cost.optimizer_s = 3.0;
  const Batch batch = test::make_batch({1});
  const Plan plan = test::make_plan(4, {task(0, {0}, {0})});
  const SimulatedStep step = simulate(plan, batch, cluster, cost).steps.front();
  EXPECT_DOUBLE_EQ(step.tasks_end_s, 2.0);
  const double inside_s = 0.5 + 30.0 / 30.0;       // once to sum, once to hand out
  const double across_s = 2 * 0.25 + 30.0 / 10.0;  // both ways round
  EXPECT_DOUBLE_EQ(step.reduce_end_s, 2.0 + 2 * inside_s + across_s);
  EXPECT_DOUBLE_EQ(step.seconds, step.reduce_end_s + 3.0 / 0.5);
  EXPECT_DOUBLE_EQ(step.ranks[0].idle.no_task_s, 3.0);
  EXPECT_DOUBLE_EQ(step.ranks[1].idle.no_task_s, 5.0);
  EXPECT_DOUBLE_EQ(step.ranks[3].idle.no_task_s, 2.0);
  cluster.node_bandwidth_bytes_per_s = 10.0;  // of both ranks together: 60 bytes out of each node
  const SimulatedStep shared = simulate(plan, batch, cluster, cost).steps.front();
  EXPECT_DOUBLE_EQ(shared.reduce_end_s, 2.0 + 2 * inside_s + 2 * 0.25 + 60.0 / 10.0);
  constexpr std::int64_t kEnough = 100;  // looks
  EXPECT_EQ(tasks_end_s(plan, batch, cluster, cost, kEnough), shared.tasks_end_s);
  EXPECT_FALSE(tasks_end_s(plan, batch, cluster, cost, 1));
  const SimulatedStep planned = simulate(plan, batch, cluster, cost, {.planning_s = 20.0}).steps.front();
  EXPECT_DOUBLE_EQ(planned.seconds, 20.0);
  EXPECT_DOUBLE_EQ(planned.ranks[3].idle.data_s, 20.0 - shared.seconds);
  EXPECT_DOUBLE_EQ(simulate(plan, batch, cluster, cost, {.planning_s = 4.0}).steps.front().seconds, shared.seconds);
}

TEST(Simulator, BarriersHoldUntilTheSlowestTask) {
  CostModel cost = no_cost();
  cost.forward.token_s = 1.0;
  const Cluster cluster = two_nodes(1);
  const Batch batch = test::make_batch({5, 1, 2, 3});
  const std::vector<Task> tasks = {task(0, {0}, {0}), task(1, {1}, {1}), task(2, {1}, {2}, Exchange::ring, 1),
                                   task(3, {0}, {3}, Exchange::ring, 1)};
  const SimulatedStep lockstep =
      simulate(test::make_plan(2, tasks, Schedule::lockstep), batch, cluster, cost).steps.front();
  EXPECT_DOUBLE_EQ(lockstep.tasks[2].start_s, 5.0);
  EXPECT_DOUBLE_EQ(lockstep.seconds, 8.0);
  EXPECT_DOUBLE_EQ(lockstep.ranks[1].idle.peer_s, 4.0);
  EXPECT_DOUBLE_EQ(lockstep.ranks[1].idle.no_task_s, 1.0);
  const SimulatedStep free = simulate(test::make_plan(2, tasks), batch, cluster, cost).steps.front();
  EXPECT_DOUBLE_EQ(free.tasks[2].start_s, 1.0);
  EXPECT_DOUBLE_EQ(free.ranks[1].idle.peer_s, 0.0);
}

TEST(Simulator, EmptyBatchesTakeNoTime) {
  const Simulation simulation =
      simulate(test::make_plan(4, {}), {}, two_nodes(2), no_cost(), {.steps = 2, .recorded_steps = 2});
  ASSERT_EQ(simulation.steps.size(), 2U);
  EXPECT_EQ(simulation.steps[1].seconds, 0.0);
  EXPECT_TRUE(rank_spans(test::make_plan(4, {}), two_nodes(2), simulation.steps[0]).empty());
  EXPECT_NE(to_json(to_result(simulation, test::make_plan(4, {}), {}, two_nodes(2), no_cost())).find("\"steps\""),
            std::string::npos);
}

TEST(Simulator, MemoryGrowsToTheEndOfTheForwardPass) {
  CostModel cost = no_cost();
  cost.forward.token_s = 1.0;
  cost.backward.token_s = 2.0;
  const Batch batch = test::make_batch({30});
  const Plan plan = test::make_plan(2, {task(0, {1, 0}, {0})});
  const Cluster cluster = two_nodes(1);
  const Simulation simulation = simulate(plan, batch, cluster, cost, {.recorded_steps = 1});
  const std::vector<MemoryPoint> points = memory_over_time(plan, batch, cost, simulation.steps.front());
  ASSERT_EQ(points.size(), 6U);
  EXPECT_EQ(points[1].time_s, 15.0);
  EXPECT_EQ(points[1].bytes, 15.0);  // a byte a token
  EXPECT_EQ(points[2].time_s, 45.0);
  EXPECT_EQ(points[2].bytes, 0.0);
  EXPECT_EQ(to_result(simulation, plan, batch, cluster, cost).memory->peak_bytes, (std::vector{15.0, 15.0}));
}

TEST(Simulator, RefusesWhatMakesNoSense) {
  const Cluster cluster = two_nodes(1);
  const Batch batch = test::make_batch({30});
  const Plan plan = test::make_plan(2, {task(0, {1, 0}, {0})});
  EXPECT_THROW(simulate(plan, batch, cluster, no_cost(), {.steps = 0}), std::invalid_argument);
  EXPECT_THROW(simulate(plan, batch, cluster, no_cost(), {.noise = {0.0, 1.5, 0.0}}), InputError);
  EXPECT_THROW(simulate(plan, batch, cluster, no_cost(), {.planning_s = -1.0}), std::invalid_argument);
  EXPECT_THROW(simulate(plan, {}, cluster, no_cost()), InputError);
  EXPECT_THROW(simulate(plan, batch, two_nodes(2), no_cost()), InputError);
  CostModel endless = no_cost();
  endless.forward.pair_s = 1e306;
  EXPECT_NE(test::input_error([&] { simulate(plan, batch, cluster, endless); }).find("longer"), std::string::npos);
}

}  // namespace
}  // namespace dhp::simulator_test
