// What one change of cluster, batch or schedule would buy.

#include <algorithm>
#include <optional>
#include <unordered_set>
#include <utility>

#include "dhp/bound.h"
#include "dhp/error.h"
#include "dhp/explain.h"
#include "dhp/plan_options.h"
#include "formats/sequence_index.h"
#include "plan/planners.h"

namespace dhp {
namespace {

constexpr double kMoreMemory = 1.1;

bool is_known_planner(const std::string& planner) {
  const std::string name = planner.substr(0, planner.find(':'));
  const std::vector<PlannerInfo> infos = planners();
  return std::any_of(infos.begin(), infos.end(),
                     [&](const PlannerInfo& info) { return info.name.substr(0, info.name.find(':')) == name; });
}

Cluster with_more_ranks(Cluster cluster) {
  const int before = cluster.ranks();
  if (cluster.nodes > 1) {
    ++cluster.nodes;
  } else {
    ++cluster.ranks_per_node;
  }
  if (!cluster.rank_speed.empty()) {
    cluster.rank_speed.resize(cluster.rank_speed.size() + static_cast<std::size_t>(cluster.ranks() - before), 1.0);
  }
  return cluster;
}

Cluster with_bandwidth(Cluster cluster, Link Cluster::*link, double factor) {
  (cluster.*link).bandwidth_bytes_per_s *= factor;
  return cluster;
}

/// Answers "how long would the step take" for one cluster and batch.
class Estimator {
 public:
  Estimator(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost,
            const PlanOptions& options)
      : cost_(cost), options_(options), plans_(is_known_planner(plan.planner)), sequences_(batch.sequences.size()) {
    options_.planner = plan.planner;
    if (!plans_) return;
    keep(plan, batch);
    again_ = plan_again(batch, cluster);
    if (const Plan* planned = std::get_if<Plan>(&again_); planned != nullptr) {
      if (plan_hash(*planned, batch) != plan_hash(plan, batch)) keep(*planned, batch);
    }
  }

  std::string method() const { return plans_ ? "planned again by " + options_.planner : "lower bounds"; }

  /// For the cluster and the batch as they are.
  Change unchanged(const Batch& batch, const Cluster& cluster) const {
    return plans_ ? answer({.what = "", .no_answer = ""}, again_, batch, cluster) : bound("", batch, cluster, 0.0);
  }

  Change ask(const std::string& what, const Batch& batch, const Cluster& cluster, double from_s) const {
    if (!plans_) return bound(what, batch, cluster, from_s);
    return answer({.what = what, .from_s = from_s, .no_answer = ""}, plan_again(batch, cluster), batch, cluster);
  }

 private:
  Change bound(const std::string& what, const Batch& batch, const Cluster& cluster, double from_s) const {
    return {what, from_s, tighter_lower_bound_s(batch, cluster, cost_), ""};
  }

  Change answer(Change change, const PlanResult& result, const Batch& batch, const Cluster& cluster) const {
    const Plan* planned = std::get_if<Plan>(&result);
    if (planned == nullptr) {
      change.no_answer = std::get<Infeasible>(result).reason;
      return change;
    }
    change.makespan_s = replay(*planned, predict_task_seconds(*planned, batch, cluster, cost_)).makespan_s;
    for (const Kept& kept : kept_) {
      change.makespan_s = kept_s(kept, batch, cluster, change.makespan_s).value_or(change.makespan_s);
    }
    return change;
  }

  PlanResult plan_again(const Batch& batch, const Cluster& cluster) const {
    try {
      return plan::plan_without_times(batch, cluster, cost_, options_);
    } catch (const InputError& error) {  // static:4 on ranks that 4 does not divide
      return Infeasible{.reason = error.what(), .sequence = {}};
    }
  }

  /// A plan of the cluster as it is, and what its tasks hold.
  struct Kept {
    Plan plan;
    std::vector<Load> loads;
  };

  void keep(Plan plan, const Batch& batch) {
    const SequenceIndex by_id(batch);
    Kept& kept = kept_.emplace_back();
    for (std::size_t i = 0; i < plan.tasks.size(); ++i) kept.loads.push_back(by_id.load_of(plan, i));
    for (Task& task : plan.tasks) {
      task.start_s.reset();
      task.end_s.reset();
    }
    kept.plan = std::move(plan);
  }

  /// What a plan for another cluster and more sequences takes here, if that is less than `limit_s` and it is valid.
  std::optional<double> kept_s(const Kept& kept, const Batch& batch, const Cluster& cluster, double limit_s) const {
    const bool whole = batch.sequences.size() == sequences_;
    if (whole && !(replayed_s(kept, cluster) < limit_s)) return std::nullopt;  // valid or not: checks take longer
    Plan here{.schedule = kept.plan.schedule, .ranks = cluster.ranks(), .tasks = kept.plan.tasks};
    if (!whole) remove_others(here, batch);
    if (!check_plan(here, batch, cluster, cost_).empty()) return std::nullopt;
    if (!check_options(here, batch, cluster, cost_, options_).empty()) return std::nullopt;
    const double seconds = replay(here, predict_task_seconds(here, batch, cluster, cost_)).makespan_s;
    return seconds < limit_s ? std::optional(seconds) : std::nullopt;
  }

  double replayed_s(const Kept& kept, const Cluster& cluster) const {
    std::vector<double> task_s;
    task_s.reserve(kept.loads.size());
    for (std::size_t i = 0; i < kept.loads.size(); ++i) {
      const Task& task = kept.plan.tasks[i];
      task_s.push_back(task_seconds(cost_, cluster, kept.loads[i], shape_of(cluster, task.ranks), task.exchange));
    }
    return replay(kept.plan, task_s).makespan_s;
  }

  /// Tasks without sequences that the batch lacks.
  static void remove_others(Plan& plan, const Batch& batch) {
    std::unordered_set<std::int64_t> ids;  // looked up only, never walked
    for (const Sequence& sequence : batch.sequences) ids.insert(sequence.id);
    for (Task& task : plan.tasks) std::erase_if(task.sequences, [&](std::int64_t id) { return !ids.contains(id); });
    std::erase_if(plan.tasks, [](const Task& task) { return task.sequences.empty(); });
    for (std::size_t i = 0; i < plan.tasks.size(); ++i) plan.tasks[i].id = static_cast<int>(i);
  }

  const CostModel& cost_;
  PlanOptions options_;
  bool plans_;
  std::size_t sequences_;   ///< of the batch as it is
  PlanResult again_;        ///< of the cluster as it is; unused without planner
  std::vector<Kept> kept_;  ///< the plan at hand, and what planning again makes of it
};

/// The batch without the sequence that bounds it; nothing where all of them together do.
std::optional<std::pair<std::int64_t, Batch>> without_limit(const Batch& batch, const Cluster& cluster,
                                                            const CostModel& cost) {
  const std::optional<std::size_t> limit = tighter_lower_bound(batch, cluster, cost).sequence;
  if (!limit || batch.sequences.size() < 2) return std::nullopt;
  std::pair result{batch.sequences[*limit].id, batch};
  result.second.sequences.erase(result.second.sequences.begin() + static_cast<std::ptrdiff_t>(*limit));
  return result;
}

}  // namespace

WhatIf explain_changes(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost,
                       const PlanOptions& options) {
  validate(options);
  require_shape(plan, cluster);
  validate(batch, "batch");
  validate(cost, "cost");
  WhatIf result;
  if (plan.tasks.empty()) return result;
  const Estimator estimator(plan, batch, cluster, cost, options);
  result.method = estimator.method();
  const Change unchanged = estimator.unchanged(batch, cluster);
  result.from_s = unchanged.makespan_s;
  result.no_answer = unchanged.no_answer;
  const auto ask = [&](const std::string& what, const Cluster& changed) {
    result.changes.push_back(estimator.ask(what, batch, changed, result.from_s));
  };

  const bool nodes = cluster.nodes > 1;
  ask(nodes ? "one node more" : "one rank more", with_more_ranks(cluster));
  Cluster roomier = cluster;
  roomier.memory_bytes *= kMoreMemory;
  ask("10 % more memory a rank", roomier);
  if (nodes) ask("twice the bandwidth between nodes", with_bandwidth(cluster, &Cluster::inter_node, 2.0));
  ask(nodes ? "twice the bandwidth inside nodes" : "twice the bandwidth",
      with_bandwidth(cluster, &Cluster::intra_node, 2.0));
  if (!cluster.rank_speed.empty()) {
    Cluster nominal = cluster;
    nominal.rank_speed.clear();
    ask("all ranks at nominal speed", nominal);
  }
  if (const auto without = without_limit(batch, cluster, cost)) {
    result.changes.push_back(
        estimator.ask("without sequence " + std::to_string(without->first), without->second, cluster, result.from_s));
  }
  if (plan.schedule != Schedule::free) {
    Plan unbarred = plan;
    unbarred.schedule = Schedule::free;
    const std::vector<double> task_s = predict_task_seconds(plan, batch, cluster, cost);
    result.changes.push_back(
        {"the same tasks without barriers", replay(plan, task_s).makespan_s, replay(unbarred, task_s).makespan_s, ""});
  }
  return result;
}

}  // namespace dhp
