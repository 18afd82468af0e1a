#include <algorithm>
#include <cstdint>
#include <string>

#include "dhp/bound.h"
#include "dhp/error.h"
#include "dhp/plan.h"
#include "formats/sequence_index.h"
#include "formats/shape.h"

namespace dhp {

double Timeline::idle_share(int ranks_in_service) const {
  const double capacity = makespan_s * ranks_in_service;
  if (capacity <= 0.0) return 0.0;
  double busy = 0.0;
  for (const double seconds : busy_s) busy += seconds;
  return 1.0 - busy / capacity;
}

namespace {

std::string path_of(std::size_t task, const char* field) { return "tasks[" + std::to_string(task) + "]." + field; }

[[noreturn]] void refuse_rank(std::size_t task, Rank rank, int ranks) {
  throw InputError("plan", path_of(task, "ranks"),
                   "found rank " + std::to_string(rank) + ", expected 0 to " + std::to_string(ranks - 1));
}

}  // namespace

Timeline replay(const Plan& plan, std::span<const double> task_s) {
  require_shape(plan);
  if (task_s.size() != plan.tasks.size()) {
    throw InputError("task_s", "",
                     "found " + std::to_string(task_s.size()) + " durations, expected one for each of the " +
                         std::to_string(plan.tasks.size()) + " tasks");
  }
  Timeline timeline;
  timeline.start_s.reserve(task_s.size());
  timeline.end_s.reserve(task_s.size());
  timeline.busy_s.assign(static_cast<std::size_t>(plan.ranks), 0.0);
  std::vector<double> ready_s(timeline.busy_s.size(), 0.0);
  double barrier_s = 0.0;
  for (std::size_t i = 0; i < plan.tasks.size(); ++i) {
    const Task& task = plan.tasks[i];
    if (plan.schedule != Schedule::free && i > 0 && task.micro_batch != plan.tasks[i - 1].micro_batch) {
      barrier_s = timeline.makespan_s;
    }
    double start = barrier_s;
    for (const Rank rank : task.ranks) start = std::max(start, ready_s[static_cast<std::size_t>(rank)]);
    const double end = start + task_s[i];
    for (const Rank rank : task.ranks) {
      ready_s[static_cast<std::size_t>(rank)] = end;
      timeline.busy_s[static_cast<std::size_t>(rank)] += task_s[i];
    }
    timeline.start_s.push_back(start);
    timeline.end_s.push_back(end);
    timeline.makespan_s = std::max(timeline.makespan_s, end);
  }
  return timeline;
}

namespace {

void check_ranks_of_task(const Plan& plan, std::size_t index, int ranks) {
  const Task& task = plan.tasks[index];
  if (task.ranks.empty()) throw InputError("plan", path_of(index, "ranks"), "found no rank, expected at least one");
  for (const Rank rank : task.ranks) {
    if (rank < 0 || rank >= ranks) refuse_rank(index, rank, ranks);
  }
}

}  // namespace

std::vector<double> predict_task_seconds(const Plan& plan, const Batch& batch, const Cluster& cluster,
                                         const CostModel& cost) {
  require_ranks(cluster);
  const SequenceIndex sequences(batch);
  constexpr std::size_t kAhead = 8;  // tasks
  std::vector<double> seconds;
  seconds.reserve(plan.tasks.size());
  for (std::size_t i = 0; i < plan.tasks.size(); ++i) {
    const Task& task = plan.tasks[i];
    if (i + kAhead < plan.tasks.size()) sequences.prefetch(plan.tasks[i + kAhead]);
    const Load load = sequences.load_of(plan, i);
    check_ranks_of_task(plan, i, cluster.ranks());
    seconds.push_back(task_seconds(cost, cluster, load, shape_of(cluster, task.ranks), task.exchange));
  }
  require_shape(plan);
  return seconds;
}

bool uses_all_to_all(const Plan& plan) {
  return std::any_of(plan.tasks.begin(), plan.tasks.end(),
                     [](const Task& task) { return task.exchange == Exchange::all_to_all && task.degree() > 1; });
}

namespace {

void set_bound(Prediction& prediction, double lower_bound_s) {
  prediction.lower_bound_s = lower_bound_s;
  prediction.gap = lower_bound_s > 0.0 ? prediction.makespan_s / lower_bound_s - 1.0 : 0.0;
}

}  // namespace

void annotate(Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost) {
  require_shape(plan, cluster);
  const Timeline timeline = replay(plan, predict_task_seconds(plan, batch, cluster, cost));
  for (std::size_t i = 0; i < plan.tasks.size(); ++i) {
    plan.tasks[i].start_s = timeline.start_s[i];
    plan.tasks[i].end_s = timeline.end_s[i];
  }
  Prediction prediction;
  prediction.makespan_s = timeline.makespan_s;
  // The bounds charge one attention step a rank, which all_to_all does not pay: none is known for such a plan.
  set_bound(prediction, uses_all_to_all(plan) ? 0.0 : simple_lower_bound_s(batch, cluster, cost));
  plan.predicted = prediction;
  plan.hash = plan_hash(plan, batch);
}

void certify(Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost) {
  validate(batch, "batch");
  validate(cluster, "cluster");
  validate(cost, "cost");
  require_shape(plan, cluster);
  if (!plan.predicted || uses_all_to_all(plan)) return;
  set_bound(*plan.predicted, tighter_lower_bound_s(batch, cluster, cost));
}

}  // namespace dhp
