#include "dhp/simulator.h"

#include <algorithm>
#include <stdexcept>

#include "base/index.h"
#include "dhp/error.h"
#include "dhp/metrics.h"
#include "formats/sequence_index.h"
#include "sim/executor.h"

namespace dhp {

using namespace sim;

namespace {

void check(const SimulateOptions& options) {
  if (options.steps < 1) throw std::invalid_argument("simulate: fewer than 1 step");
  validate(options.noise, "noise");
  if (!(options.planning_s >= 0.0)) throw std::invalid_argument("simulate: planning takes less than no time");
}

std::vector<Program> programs_of(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost) {
  const SequenceIndex by_id(batch);
  std::vector<Program> programs;
  programs.reserve(plan.tasks.size());
  for (std::size_t i = 0; i < plan.tasks.size(); ++i) {
    programs.push_back(task_program(cost, cluster, by_id.load_of(plan, i), plan.tasks[i]));
  }
  return programs;
}

/// What follows the tasks, and where the time of every rank went.
void account(SimulatedStep& step, const Plan& plan, const Cluster& cluster, const CostModel& cost, double planning_s) {
  step.optimizer_end_s = step.reduce_end_s;
  for (const Rank rank : cluster.live_ranks()) {
    step.optimizer_end_s =
        std::max(step.optimizer_end_s, step.reduce_end_s + cost.optimizer_s / cluster.speed_of(rank));
  }
  step.seconds = std::max(step.optimizer_end_s, planning_s);
  step.ranks.assign(index(plan.ranks), {});
  std::vector<double> ready_s(index(plan.ranks), 0.0);
  for (std::size_t i = 0; i < plan.tasks.size(); ++i) {
    const SimulatedTask& task = step.tasks[i];
    for (const Rank rank : plan.tasks[i].ranks) {
      SimulatedRank& at = step.ranks[index(rank)];
      at.compute_s += task.compute_s();
      at.transfer_s += task.transfer_s;
      at.idle.transfer_s += task.exposed_s;
      at.idle.peer_s += task.start_s - ready_s[index(rank)];
      ready_s[index(rank)] = task.end_s;
    }
  }
  for (const Rank rank : cluster.live_ranks()) {
    SimulatedRank& at = step.ranks[index(rank)];
    at.reduce_s = step.reduce_end_s - step.tasks_end_s;
    at.optimizer_s = cost.optimizer_s / cluster.speed_of(rank);
    // Ends are sums, their differences rounded.
    const double optimizer_wait_s = std::max(0.0, step.optimizer_end_s - step.reduce_end_s - at.optimizer_s);
    at.idle.no_task_s = step.tasks_end_s - ready_s[index(rank)] + optimizer_wait_s;
    at.idle.data_s = step.seconds - step.optimizer_end_s;
  }
}

/// Rows of tasks and ranks that unrecorded steps keep, so that any number of steps can be run.
constexpr std::size_t kMostRows = 1'000'000;

void sum_up(SimulatedStep& step, std::vector<SimulatedRank>& totals) {
  for (std::size_t rank = 0; rank < totals.size(); ++rank) {
    const SimulatedRank& at = step.ranks[rank];
    step.idle += at.idle;
    totals[rank].compute_s += at.compute_s;
    totals[rank].idle += at.idle;
    totals[rank].reduce_s += at.reduce_s;
    totals[rank].optimizer_s += at.optimizer_s;
    totals[rank].transfer_s += at.transfer_s;
  }
}

}  // namespace

Simulation simulate(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost,
                    const SimulateOptions& options) {
  check(options);
  require_shape(plan, cluster);
  validate(batch, "batch");
  const std::vector<Program> exact = programs_of(plan, batch, cluster, cost);
  const Program reduce = reduce_program(cost, cluster);
  Simulation simulation;
  simulation.rank_totals.assign(index(plan.ranks), {});
  std::size_t kept = 0;  // rows of tasks and ranks
  std::optional<NoiseFactors> factors;
  if (options.noise.any()) factors.emplace(plan, batch, cluster, cost, options.noise, options.seed);
  for (int trial = 0; trial < options.steps; ++trial) {
    std::vector<Program> noisy;
    if (factors) {
      noisy = exact;
      const std::vector<double> drawn = factors->of_trial(trial);
      for (std::size_t task = 0; task < noisy.size(); ++task) slow_down(noisy[task], drawn[task]);
    }
    const bool recorded = trial < options.recorded_steps;
    simulation.steps.push_back(execute(plan, cluster, factors ? noisy : exact, reduce, recorded));
    SimulatedStep& step = simulation.steps.back();
    account(step, plan, cluster, cost, options.planning_s);
    sum_up(step, simulation.rank_totals);
    kept += step.tasks.size() + step.ranks.size();
    if (recorded || trial == 0 || kept <= kMostRows) continue;
    std::vector<SimulatedTask>().swap(step.tasks);  // an assignment would keep the memory
    std::vector<SimulatedRank>().swap(step.ranks);
  }
  return simulation;
}

std::optional<double> tasks_end_s(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost,
                                  std::int64_t most_looks) {
  require_shape(plan, cluster);
  validate(batch, "batch");
  const auto step =
      execute_within(plan, cluster, programs_of(plan, batch, cluster, cost), reduce_program(cost, cluster), most_looks);
  return step ? std::optional(step->tasks_end_s) : std::nullopt;
}

}  // namespace dhp
