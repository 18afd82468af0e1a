#include <algorithm>
#include <stdexcept>
#include <string>
#include <unordered_map>

#include "dhp/error.h"
#include "dhp/plan.h"

namespace dhp {

double Timeline::idle_share() const {
  const double capacity = makespan_s * static_cast<double>(busy_s.size());
  if (capacity <= 0.0) return 0.0;
  double busy = 0.0;
  for (const double seconds : busy_s) busy += seconds;
  return 1.0 - busy / capacity;
}

Timeline replay(const Plan& plan, std::span<const double> task_s) {
  if (task_s.size() != plan.tasks.size()) {
    throw std::invalid_argument("replay: " + std::to_string(task_s.size()) + " durations for " +
                                std::to_string(plan.tasks.size()) + " tasks");
  }
  Timeline timeline;
  timeline.start_s.reserve(task_s.size());
  timeline.end_s.reserve(task_s.size());
  timeline.busy_s.assign(static_cast<std::size_t>(std::max(0, plan.ranks)), 0.0);
  std::vector<double> ready_s(timeline.busy_s.size(), 0.0);
  double barrier_s = 0.0;
  for (std::size_t i = 0; i < plan.tasks.size(); ++i) {
    const Task& task = plan.tasks[i];
    if (plan.schedule != Schedule::free && i > 0 && task.micro_batch != plan.tasks[i - 1].micro_batch) {
      barrier_s = timeline.makespan_s;
    }
    double start = barrier_s;
    for (const Rank rank : task.ranks) {
      if (rank < 0 || rank >= plan.ranks) {
        throw std::invalid_argument("replay: task " + std::to_string(task.id) + " has rank " + std::to_string(rank) +
                                    " outside the " + std::to_string(plan.ranks) + " of the plan");
      }
      start = std::max(start, ready_s[static_cast<std::size_t>(rank)]);
    }
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

std::vector<double> predict_task_seconds(const Plan& plan, const Batch& batch, const Cluster& cluster,
                                         const CostModel& cost) {
  std::unordered_map<std::int64_t, const Sequence*> by_id;  // looked up only, never walked
  by_id.reserve(batch.sequences.size());
  for (const Sequence& sequence : batch.sequences) by_id.emplace(sequence.id, &sequence);
  std::vector<double> seconds;
  seconds.reserve(plan.tasks.size());
  for (std::size_t i = 0; i < plan.tasks.size(); ++i) {
    const Task& task = plan.tasks[i];
    const std::string place = "tasks[" + std::to_string(i) + "]";
    Load load;
    for (const std::int64_t id : task.sequences) {
      const auto found = by_id.find(id);
      if (found == by_id.end()) {
        throw InputError("plan", place + ".sequences",
                         "found sequence " + std::to_string(id) +
                             ", which the batch lacks; is it the plan of another "
                             "batch?");
      }
      load.add(*found->second);
    }
    if (task.ranks.empty()) throw InputError("plan", place + ".ranks", "found no rank, expected at least one");
    for (const Rank rank : task.ranks) {
      if (rank < 0 || rank >= cluster.ranks()) {
        throw InputError(
            "plan", place + ".ranks",
            "found rank " + std::to_string(rank) + ", expected 0 to " + std::to_string(cluster.ranks() - 1));
      }
    }
    seconds.push_back(task_seconds(cost, cluster, load, shape_of(cluster, task.ranks), task.exchange));
  }
  return seconds;
}

void annotate(Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost) {
  const Timeline timeline = replay(plan, predict_task_seconds(plan, batch, cluster, cost));
  bool all_to_all = false;
  for (std::size_t i = 0; i < plan.tasks.size(); ++i) {
    plan.tasks[i].start_s = timeline.start_s[i];
    plan.tasks[i].end_s = timeline.end_s[i];
    all_to_all = all_to_all || (plan.tasks[i].exchange == Exchange::all_to_all && plan.tasks[i].degree() > 1);
  }
  Prediction prediction;
  prediction.makespan_s = timeline.makespan_s;
  // The bound charges one attention step a rank, which all_to_all does not pay: no bound is known for such a plan.
  if (!all_to_all) prediction.lower_bound_s = simple_lower_bound_s(batch, cluster, cost);
  if (prediction.lower_bound_s > 0.0) prediction.gap = prediction.makespan_s / prediction.lower_bound_s - 1.0;
  plan.predicted = prediction;
  plan.hash = plan_hash(plan, batch);
}

}  // namespace dhp
