// What one change of cluster, batch or schedule would buy.

#include <algorithm>
#include <optional>

#include "dhp/bound.h"
#include "dhp/error.h"
#include "dhp/explain.h"

namespace dhp {
namespace {

constexpr double kMoreMemory = 1.1;

bool is_known_planner(const std::string& schedule) {
  const std::string name = schedule.substr(0, schedule.find(':'));
  const std::vector<PlannerInfo>& infos = planners();
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
  Estimator(const Plan& plan, const CostModel& cost, const PlanOptions& options)
      : cost_(cost), options_(options), plans_(is_known_planner(plan.planner)) {
    options_.schedule = plan.planner;
  }

  std::string method() const { return plans_ ? "planned again by " + options_.schedule : "lower bounds"; }

  Change ask(const std::string& what, const Batch& batch, const Cluster& cluster, double from_s = 0.0) const {
    Change change{.what = what, .from_s = from_s, .no_answer = ""};
    if (!plans_) {
      change.makespan_s = tighter_lower_bound_s(batch, cluster, cost_);
      return change;
    }
    try {
      const PlanResult result = plan_batch(batch, cluster, cost_, options_);
      if (const Plan* plan = std::get_if<Plan>(&result)) {
        change.makespan_s = plan->predicted.value_or(Prediction{}).makespan_s;
      } else {
        change.no_answer = std::get<Infeasible>(result).reason;
      }
    } catch (const InputError& error) {  // static:4 on ranks that 4 does not divide
      change.no_answer = error.what();
    }
    return change;
  }

 private:
  const CostModel& cost_;
  PlanOptions options_;
  bool plans_;
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
  WhatIf result;
  if (plan.tasks.empty()) return result;
  const Estimator estimator(plan, cost, options);
  result.method = estimator.method();
  result.from_s = estimator.ask("", batch, cluster).makespan_s;
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
