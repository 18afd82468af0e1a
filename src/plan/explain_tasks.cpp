// Why a task has its degree: what the next narrower one would have meant.

#include <algorithm>
#include <array>
#include <cstdio>
#include <unordered_map>

#include "dhp/explain.h"
#include "plan/start_cause.h"

namespace dhp {
namespace {

std::size_t index(int value) { return static_cast<std::size_t>(value); }

std::string seconds_text(double seconds) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), seconds < 0.1 ? "%.3g ms" : "%.2f s",
                seconds < 0.1 ? seconds * 1e3 : seconds);
  return text.data();
}

std::string ranks_text(int ranks) { return std::to_string(ranks) + (ranks == 1 ? " rank" : " ranks"); }

bool is_power_of_two(int degree) { return (degree & (degree - 1)) == 0; }

class DegreeReasons {
 public:
  DegreeReasons(const Plan& plan, const Cluster& cluster, const CostModel& cost, const Timeline& timeline)
      : plan_(plan), cluster_(cluster), cost_(cost), timeline_(timeline) {
    const auto all = [&](auto condition) { return std::all_of(plan.tasks.begin(), plan.tasks.end(), condition); };
    powers_of_two_ = all([](const Task& task) { return is_power_of_two(task.degree()); });
    one_degree_ =
        plan.tasks.size() > 1 && all([&](const Task& task) { return task.degree() == plan.tasks.front().degree(); });
    for (const Task& task : plan.tasks) {
      micro_batch_s_.resize(std::max(micro_batch_s_.size(), index(task.micro_batch) + 1), 0.0);
      double& slowest = micro_batch_s_[index(task.micro_batch)];
      slowest = std::max(slowest, seconds_of(task));
    }
  }

  std::string reason(const Task& task, const Load& load) const {
    if (task.degree() == 1) {
      if (load.sequences == 1) return "alone on one rank: fits, no transfer";
      return std::to_string(load.sequences) + " sequences packed on one rank: they fit, no transfer";
    }
    return why_not_narrower(task, load) + frame_text(task, load) + nodes_text(task);
  }

 private:
  double seconds_of(const Task& task) const {
    return timeline_.end_s[index(task.id)] - timeline_.start_s[index(task.id)];
  }

  int fewest_ranks(const Load& load, int most) const {
    const double budget = activation_budget_bytes(cost_, cluster_);
    int degree = 1;
    while (degree < most && task_memory_bytes(cost_, load, degree) > budget) ++degree;
    return degree;
  }

  /// On nodes as full as can be, at the speed of the task's own group.
  double narrower_s(const Task& task, const Load& load, int degree) const {
    GroupShape shape = consecutive_shape(cluster_, 0, degree);
    shape.speed = shape_of(cluster_, task.ranks).speed;
    return task_seconds(cost_, cluster_, load, shape, degree == 1 ? Exchange::ring : task.exchange);
  }

  std::string why_not_narrower(const Task& task, const Load& load) const {
    const int degree = task.degree();
    const int fewest = fewest_ranks(load, degree);
    const int narrower = powers_of_two_ ? degree / 2 : degree - 1;
    if (fewest == degree) return "memory: " + ranks_text(degree) + " are the fewest that hold it";
    if (fewest > narrower) {
      return "memory: " + ranks_text(fewest) + " would hold it, " + std::to_string(degree) +
             " is the next power of two";
    }
    if (one_degree_) return "one degree: every task of the plan has " + ranks_text(degree);

    const double seconds = narrower_s(task, load, narrower);
    const std::string then = "at degree " + std::to_string(narrower) + " it would take " + seconds_text(seconds);
    const double start_s = timeline_.start_s[index(task.id)];
    if (plan_.schedule == Schedule::lockstep) {
      const double slowest_s = micro_batch_s_[index(task.micro_batch)];
      if (seconds > slowest_s) {
        return "length: " + then + " and hold up micro-batch " + std::to_string(task.micro_batch) + ", which takes " +
               seconds_text(slowest_s);
      }
    } else if (seconds > timeline_.makespan_s) {
      return "length: " + then + ", longer than the step";
    } else if (start_s + seconds > timeline_.makespan_s) {
      return "length: " + then + " and end " + seconds_text(start_s + seconds - timeline_.makespan_s) +
             " after the step";
    }
    if (degree * seconds_of(task) <= narrower * seconds) {
      return "cost: " + then + ", no fewer rank-seconds";
    }
    return "time: " + seconds_text(seconds_of(task)) + " instead of " + seconds_text(seconds) + " at degree " +
           std::to_string(narrower) + "; the step had room for that, too";
  }

  /// Vision that wider groups cannot shorten.
  std::string frame_text(const Task& task, const Load& load) const {
    const VisionSeconds vision = vision_seconds(cost_, load);
    if (vision.work_s >= vision.frame_s * task.degree()) return "";
    return "; its largest frame (" + std::to_string(static_cast<std::int64_t>(load.largest_frame)) +
           " patches) stays on one rank for " + seconds_text(vision.frame_s);
  }

  std::string nodes_text(const Task& task) const {
    const GroupShape shape = shape_of(cluster_, task.ranks);
    if (shape.nodes == 1) return "";
    if (task.degree() > cluster_.ranks_per_node) return "; cross-node: wider than a node";
    return "; spans " + std::to_string(shape.nodes) + " nodes";
  }

  const Plan& plan_;
  const Cluster& cluster_;
  const CostModel& cost_;
  const Timeline& timeline_;
  bool powers_of_two_ = false;  ///< every degree of the plan is one
  bool one_degree_ = false;     ///< the plan has one degree for all
  std::vector<double> micro_batch_s_;
};

std::string start_text(const Plan& plan, const StartCause& cause) {
  switch (cause.kind) {
    case StartCause::Kind::step:
      break;
    case StartCause::Kind::rank:
      return "starts when rank " + std::to_string(cause.rank) + " is done with task " + std::to_string(cause.task);
    case StartCause::Kind::barrier:
      return "starts when task " + std::to_string(cause.task) + " has ended micro-batch " +
             std::to_string(plan.tasks[index(cause.task)].micro_batch);
  }
  return "starts with the step";
}

}  // namespace

std::vector<TaskReason> explain_tasks(const Plan& plan, const Batch& batch, const Cluster& cluster,
                                      const CostModel& cost) {
  const Timeline timeline = replay(plan, predict_task_seconds(plan, batch, cluster, cost));
  const std::vector<StartCause> causes = start_causes(plan, timeline);
  std::unordered_map<std::int64_t, const Sequence*> by_id;  // looked up only, never walked
  for (const Sequence& sequence : batch.sequences) by_id.emplace(sequence.id, &sequence);

  const DegreeReasons degrees(plan, cluster, cost, timeline);
  std::vector<TaskReason> reasons;
  for (const Task& task : plan.tasks) {
    Load load;
    for (const std::int64_t id : task.sequences) load.add(*by_id.at(id));
    reasons.push_back({.task = task.id,
                       .tokens = static_cast<std::int64_t>(load.tokens),
                       .start_s = timeline.start_s[index(task.id)],
                       .seconds = timeline.end_s[index(task.id)] - timeline.start_s[index(task.id)],
                       .degree = degrees.reason(task, load),
                       .start = start_text(plan, causes[index(task.id)])});
  }
  return reasons;
}

}  // namespace dhp
