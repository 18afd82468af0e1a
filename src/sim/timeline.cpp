// Simulations as what others read: spans of ranks, memory over time, dhp.result/1.

#include <algorithm>
#include <numeric>

#include "base/index.h"
#include "dhp/error.h"
#include "dhp/metrics.h"
#include "dhp/simulator.h"
#include "formats/sequence_index.h"
#include "sim/step_shape.h"

namespace dhp {

using namespace sim;

namespace {

using Kind = ResultSpan::Kind;

/// What the ranks of every task do inside of it: computing and waiting in turns. By task.
std::vector<std::vector<ResultSpan>> spans_inside(const SimulatedStep& step) {
  std::vector<std::vector<ResultSpan>> inside(step.tasks.size());
  for (std::size_t task = 0; task < step.tasks.size(); ++task) {
    const SimulatedTask& at = step.tasks[task];
    if (at.end_s > at.start_s) inside[task].push_back({0, Kind::compute, at.start_s, at.end_s, static_cast<int>(task)});
  }
  for (const Segment& segment : step.segments) {
    if (segment.kind != Segment::Kind::wait) continue;
    std::vector<ResultSpan>& spans = inside[index(segment.task)];
    const ResultSpan rest = spans.back();
    spans.pop_back();
    if (segment.start_s > rest.start_s) {
      spans.push_back({0, Kind::compute, rest.start_s, segment.start_s, segment.task});
    }
    spans.push_back({0, Kind::transfer, segment.start_s, segment.end_s, segment.task});
    spans.push_back({0, Kind::compute, segment.end_s, rest.end_s, segment.task});
  }
  for (std::vector<ResultSpan>& spans : inside) {
    if (!spans.empty() && spans.back().start_s >= spans.back().end_s) spans.pop_back();
  }
  return inside;
}

}  // namespace

void sim::require_step(const Plan& plan, const SimulatedStep& step) {
  require_shape(plan);
  const auto refuse = [](const std::string& found, const std::string& expected) {
    throw InputError("step", "", "found " + found + ", expected " + expected + "; is it a step of another plan?");
  };
  if (step.tasks.empty() && step.ranks.empty() && step.seconds > 0.0 && plan.ranks > 0) {
    throw InputError("step", "",
                     "has neither tasks nor ranks: it is a late step of which simulate() has kept the sums "
                     "alone; ask it to record as many steps (recorded_steps)");
  }
  if (step.tasks.size() != plan.tasks.size() || step.ranks.size() != index(plan.ranks)) {
    refuse(std::to_string(step.tasks.size()) + " tasks and " + std::to_string(step.ranks.size()) + " ranks",
           std::to_string(plan.tasks.size()) + " and " + std::to_string(plan.ranks));
  }
  for (const Segment& segment : step.segments) {
    if (segment.task < 0 || index(segment.task) >= plan.tasks.size() || segment.step < 0 ||
        segment.step >= plan.tasks[index(segment.task)].degree()) {
      refuse("a segment of task " + std::to_string(segment.task) + ", step " + std::to_string(segment.step),
             "tasks of the plan, and fewer steps than a task has ranks");
    }
  }
}

void sim::require_step(const Plan& plan, const Cluster& cluster, const SimulatedStep& step) {
  require_shape(plan, cluster);
  require_step(plan, step);
}

std::vector<ResultSpan> rank_spans(const Plan& plan, const Cluster& cluster, const SimulatedStep& step) {
  require_step(plan, cluster, step);
  const std::vector<std::vector<ResultSpan>> inside = spans_inside(step);
  std::vector<std::vector<ResultSpan>> of_rank(index(plan.ranks));
  const auto add = [&](Rank rank, ResultSpan span) {
    if (span.end_s <= span.start_s) return;
    span.rank = rank;
    of_rank[index(rank)].push_back(span);
  };
  std::vector<double> ready_s(index(plan.ranks), 0.0);
  for (const Task& task : plan.tasks) {
    for (const Rank rank : task.ranks) {
      add(rank, {rank, Kind::peer, ready_s[index(rank)], step.tasks[index(task.id)].start_s, task.id});
      for (const ResultSpan& span : inside[index(task.id)]) add(rank, span);
      ready_s[index(rank)] = step.tasks[index(task.id)].end_s;
    }
  }
  std::vector<ResultSpan> spans;
  for (const Rank rank : cluster.live_ranks()) {
    add(rank, {rank, Kind::reduce, step.tasks_end_s, step.reduce_end_s});
    add(rank, {rank, Kind::optimizer, step.reduce_end_s, step.reduce_end_s + step.ranks[index(rank)].optimizer_s});
    add(rank, {rank, Kind::data, step.optimizer_end_s, step.seconds});
    spans.insert(spans.end(), of_rank[index(rank)].begin(), of_rank[index(rank)].end());
  }
  return spans;
}

std::vector<MemoryPoint> memory_over_time(const Plan& plan, const Batch& batch, const CostModel& cost,
                                          const SimulatedStep& step) {
  require_step(plan, step);
  const SequenceIndex by_id(batch);
  std::vector<std::vector<MemoryPoint>> of_rank(index(plan.ranks));
  for (const Task& task : plan.tasks) {
    const double bytes = task_memory_bytes(cost, by_id.load_of(plan, index(task.id)), task.degree());
    const SimulatedTask& at = step.tasks[index(task.id)];
    for (const Rank rank : task.ranks) {
      of_rank[index(rank)].push_back({rank, at.start_s, 0.0});
      of_rank[index(rank)].push_back({rank, at.forward_end_s, bytes});
      of_rank[index(rank)].push_back({rank, at.end_s, 0.0});
    }
  }
  std::vector<MemoryPoint> points;
  for (const std::vector<MemoryPoint>& some : of_rank) points.insert(points.end(), some.begin(), some.end());
  return points;
}

namespace {

double tokens_of(const Batch& batch) {
  return std::accumulate(batch.sequences.begin(), batch.sequences.end(), 0.0, [](double sum, const Sequence& sequence) {
    return sum + static_cast<double>(sequence.tokens);
  });
}

/// As `dhp compare` gives it.
double expected_makespan_s(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost) {
  double sum = 0.0;
  for (const double seconds :
       noisy_makespans(plan, batch, cluster, cost, expected_errors(cost), kExpectedTrials, kExpectedSeed)) {
    sum += seconds;
  }
  return sum / kExpectedTrials;
}

void add_tasks(Result& result, const Plan& plan, const SequenceIndex& by_id, const std::vector<double>& predicted_s,
               const SimulatedStep& step, int number) {
  constexpr std::size_t kMostTasks = 100'000;  // enough to see errors of estimates by
  if (result.tasks.size() >= kMostTasks || step.tasks.empty()) return;
  for (const Task& task : plan.tasks) {
    ResultTask& added = result.tasks.emplace_back();
    added.step = number;
    added.id = task.id;
    added.degree = task.degree();
    added.sequences = static_cast<int>(task.sequences.size());
    added.tokens = by_id.load_of(plan, index(task.id)).tokens;
    added.predicted_s = predicted_s[index(task.id)];
    added.seconds = step.tasks[index(task.id)].end_s - step.tasks[index(task.id)].start_s;
  }
}

}  // namespace

Result to_result(const Simulation& simulation, const Plan& plan, const Batch& batch, const Cluster& cluster,
                 const CostModel& cost) {
  require_shape(plan, cluster);
  for (const SimulatedStep& step : simulation.steps) {
    if (!step.tasks.empty() || !step.ranks.empty() || &step == &simulation.steps.front()) require_step(plan, step);
  }
  Result result;
  result.planner = plan.planner.empty() ? std::string(to_string(plan.schedule)) : plan.planner;
  result.name = result.planner + ", " + std::to_string(plan.ranks) + " ranks";
  result.ranks = plan.ranks;
  result.ranks_in_service = static_cast<int>(cluster.live_ranks().size());
  result.ranks_per_node = cluster.ranks_per_node;
  const std::vector<double> predicted_s = predict_task_seconds(plan, batch, cluster, cost);
  const double makespan_s = replay(plan, predicted_s).makespan_s;
  const double expected_s = expected_makespan_s(plan, batch, cluster, cost);
  const double tokens = tokens_of(batch);
  const SequenceIndex by_id(batch);
  for (std::size_t i = 0; i < simulation.steps.size(); ++i) {
    const SimulatedStep& step = simulation.steps[i];
    const int number = static_cast<int>(i) + 1;
    ResultStep& added = result.steps.emplace_back();
    added.step = number;
    added.seconds = step.seconds;
    added.tasks_s = step.tasks_end_s;
    added.predicted_s = makespan_s;
    added.expected_s = expected_s;
    if (plan.predicted && plan.predicted->lower_bound_s > 0.0) added.lower_bound_s = plan.predicted->lower_bound_s;
    added.tokens = tokens;
    added.idle = step.idle;
    add_tasks(result, plan, by_id, predicted_s, step, number);
  }
  if (simulation.steps.empty()) return result;
  const SimulatedStep& first = simulation.steps.front();
  result.timeline = {.step = 1, .spans = rank_spans(plan, cluster, first)};
  ResultMemory memory;
  memory.budget_bytes = activation_budget_bytes(cost, cluster);
  memory.peak_bytes.assign(index(plan.ranks), 0.0);
  memory.over_time = memory_over_time(plan, batch, cost, first);
  for (const MemoryPoint& point : memory.over_time) {
    double& peak = memory.peak_bytes[index(point.rank)];
    peak = std::max(peak, point.bytes);
  }
  result.memory = std::move(memory);
  for (const Sequence& sequence : batch.sequences) result.lengths.push_back(static_cast<double>(sequence.tokens));
  return result;
}

}  // namespace dhp
