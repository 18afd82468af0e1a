#include "dhp/cost_model.h"

#include <cmath>

#include "dhp/bound.h"
#include "dhp/planner.h"
#include "dhp/simulator.h"
#include "readers.h"

namespace dhp::fuzz {
namespace {

/// Two groups that share what leaves the nodes, then gradients and optimizer.
void simulate_step(const CostModel& cost, const Batch& batch) {
  const Cluster cluster{2, 4, 1e10, {1e9, 1e-5, 7}, {1e8, 1e-4, 1}, {}, 1.5e8, 2e8};
  for (const Exchange exchange : {Exchange::ring, Exchange::direct, Exchange::hierarchical}) {
    const Plan plan{.schedule = Schedule::free,
                    .ranks = 8,
                    .tasks = {{0, {0, 1, 4}, {0, 1}, 0, exchange, {}, {}}, {1, {2, 5, 6, 7}, {2}, 0, exchange, {}, {}}},
                    .predicted = {}};
    const auto simulation = unless_input_error([&] {
      return simulate(plan, batch, cluster, cost, {.steps = 2, .noise = {0.1, 0.0, 0.0}});
    });
    if (!simulation) continue;
    for (const SimulatedStep& step : simulation->steps) {
      require(step.tasks_end_s <= step.reduce_end_s && step.reduce_end_s <= step.seconds, "a step ends at its end");
      for (const SimulatedTask& task : step.tasks) require(task.start_s <= task.end_s, "no task ends before its start");
    }
  }
}

/// Whatever the costs, planners give a valid plan or say why there is none.
void plan_all(const CostModel& cost, const Batch& batch, const Cluster& cluster) {
  for (const PlannerInfo& planner : planners()) {
    if (planner.name.find(':') != std::string::npos) continue;
    const auto result = unless_input_error(
        [&] { return plan_batch(batch, cluster, cost, {.planner = planner.name, .effort = kEffortFast}); });
    const Plan* plan = result ? std::get_if<Plan>(&*result) : nullptr;
    require(plan == nullptr || check_plan(*plan, batch, cluster, cost).empty(), "a plan is valid");
  }
}

}  // namespace

void cost(std::string_view text) {
  const auto cost = round_trip<CostModel>(text, parse_cost_model, parse_cost_model);
  if (!cost) return;
  const Cluster cluster{2, 4, 1e10, {1e9, 1e-5, 7}, {1e8, 1e-4, 1}, {}};
  const Batch batch{.sequences = {{0, 1, 0}, {1, 1000, 400}, {2, 100'000, 0}}};
  for (const int degree : {1, 3, 8}) {
    const GroupShape shape = consecutive_shape(cluster, 0, degree);
    for (const Exchange exchange : {Exchange::ring, Exchange::direct, Exchange::hierarchical, Exchange::all_to_all}) {
      const auto seconds =
          unless_input_error([&] { return task_seconds(*cost, cluster, load_of(batch.sequences), shape, exchange); });
      require(!seconds || !(*seconds < 0.0), "no task takes less than no time");
    }
  }
  for (const Sequence& sequence : batch.sequences) {
    require(min_degree(*cost, cluster, sequence) >= 0, "no degree is below 0");
  }
  simulate_step(*cost, batch);
  plan_all(*cost, batch, cluster);
  require(!(simple_lower_bound_s(batch, cluster, *cost) < 0.0), "no bound is below 0");
  require(!(tighter_lower_bound_s(batch, cluster, *cost) < 0.0), "no tighter bound is below 0");
}

}  // namespace dhp::fuzz
