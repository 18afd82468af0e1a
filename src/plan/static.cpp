#include <algorithm>
#include <array>
#include <limits>
#include <numeric>

#include "plan/planners.h"

namespace dhp {
namespace {

/// Pack sizes that are tried, as shares of what a group's memory holds.
constexpr std::array kPackShares = {1.0, 1.0 / 2, 1.0 / 4, 1.0 / 8, 1.0 / 16};

/// Consecutive sequences of the batch that run together.
struct Pack {
  Load load;
  std::size_t begin = 0;  ///< in batch order
  std::size_t end = 0;
};

/// Next-fit in arrival order. A sequence longer than the pack size gets a pack of its own.
std::vector<Pack> pack_next_fit(const Batch& batch, const CostModel& cost, double capacity_bytes, int degree) {
  std::vector<Pack> packs;
  for (std::size_t i = 0; i < batch.sequences.size(); ++i) {
    Load joined = packs.empty() ? Load{} : packs.back().load;
    joined.add(batch.sequences[i]);
    if (packs.empty() || task_memory_bytes(cost, joined, degree) > capacity_bytes) {
      joined = {};
      joined.add(batch.sequences[i]);
      packs.push_back({joined, i, i});
    }
    packs.back().load = joined;
    packs.back().end = i + 1;
  }
  return packs;
}

struct Candidate {
  int degree = 0;
  std::vector<Pack> packs;
  double makespan_s = std::numeric_limits<double>::infinity();
};

/// Packs go to the groups in turn; a group runs its packs one after the other.
double makespan(const std::vector<Pack>& packs, const Cluster& cluster, const CostModel& cost, int degree) {
  const int groups = cluster.ranks() / degree;
  std::vector<double> busy_s(static_cast<std::size_t>(groups), 0.0);
  for (std::size_t i = 0; i < packs.size(); ++i) {
    const std::size_t group = i % busy_s.size();
    const GroupShape shape = consecutive_shape(cluster, static_cast<Rank>(group) * degree, degree);
    busy_s[group] += task_seconds(cost, cluster, packs[i].load, shape, Exchange::ring);
  }
  return *std::max_element(busy_s.begin(), busy_s.end());
}

Plan to_plan(const Candidate& candidate, const Batch& batch, int ranks) {
  Plan plan;
  plan.schedule = Schedule::free;
  plan.planner = "static:" + std::to_string(candidate.degree);
  const int groups = ranks / candidate.degree;
  for (std::size_t i = 0; i < candidate.packs.size(); ++i) {
    Task task;
    task.id = static_cast<int>(i);
    task.ranks.resize(static_cast<std::size_t>(candidate.degree));
    std::iota(task.ranks.begin(), task.ranks.end(), task.id % groups * candidate.degree);
    for (std::size_t k = candidate.packs[i].begin; k < candidate.packs[i].end; ++k) {
      task.sequences.push_back(batch.sequences[k].id);
    }
    plan.tasks.push_back(std::move(task));
  }
  return plan;
}

}  // namespace

PlanResult plan_static(const Batch& batch, const Limits& limits, const PlanOptions& /*options*/,
                       std::optional<int> argument) {
  const Cluster& cluster = limits.cluster();
  const CostModel& cost = limits.cost();
  if (argument) {
    if (auto infeasible = limits.find_infeasible(batch, *argument)) return std::move(*infeasible);
  }
  int narrowest = 1;
  for (const Sequence& sequence : batch.sequences) narrowest = std::max(narrowest, min_degree(cost, cluster, sequence));

  const double budget_bytes = activation_budget_bytes(cost, cluster);
  Candidate best;
  for (const int each : argument ? std::vector{*argument} : divisors(cluster.ranks())) {
    if (each < narrowest) continue;
    for (const double share : kPackShares) {
      Candidate candidate{each, pack_next_fit(batch, cost, share * budget_bytes, each)};
      candidate.makespan_s = makespan(candidate.packs, cluster, cost, each);
      if (candidate.makespan_s < best.makespan_s) best = std::move(candidate);
    }
  }
  return to_plan(best, batch, cluster.ranks());
}

}  // namespace dhp
