// Memory, least degrees and the simple lower bound.
#include <algorithm>
#include <cmath>
#include <limits>

#include "dhp/cost_model.h"

namespace dhp {
namespace {

double sequence_bytes(const CostModel& cost, const Sequence& sequence) {
  return static_cast<double>(sequence.tokens) * cost.token_bytes +
         static_cast<double>(sequence.patches) * cost.patch_bytes;
}

/// Fixed seconds of one attention step of both passes: per task, and per sequence.
double step_s(const CostModel& cost) { return cost.forward.step_s + cost.backward.step_s; }
double sequence_step_s(const CostModel& cost) { return cost.forward.sequence_step_s + cost.backward.sequence_step_s; }

/// Rank-seconds of a sequence, fixed costs apart.
double work_s(const CostModel& cost, const Sequence& sequence) {
  const auto tokens = static_cast<double>(sequence.tokens);
  return (cost.forward.token_s + cost.backward.token_s) * tokens +
         (cost.forward.pair_s + cost.backward.pair_s) * tokens * tokens / 2 +
         cost.patch_s * static_cast<double>(sequence.patches);
}

/// min over whole d in [least, most] of work / d + d * fixed. Convex in d: the best is beside sqrt(work / fixed).
double best_split_s(double work, double fixed, int least, int most) {
  const double best = fixed > 0.0 ? std::sqrt(work / fixed) : static_cast<double>(most);
  const double below = std::clamp(std::floor(best), static_cast<double>(least), static_cast<double>(most));
  const double above = std::min(below + 1, static_cast<double>(most));
  return std::min(work / below + below * fixed, work / above + above * fixed);
}

}  // namespace

double task_memory_bytes(const CostModel& cost, const Load& load, int degree) {
  return (load.tokens * cost.token_bytes + load.patches * cost.patch_bytes) / degree;
}

double activation_budget_bytes(const CostModel& cost, const Cluster& cluster) {
  return cluster.memory_bytes - cost.state_bytes;
}

int min_degree(const CostModel& cost, const Cluster& cluster, const Sequence& sequence) {
  const double budget = activation_budget_bytes(cost, cluster);
  if (!(budget > 0.0)) return 0;
  const double bytes = sequence_bytes(cost, sequence);
  constexpr double kMost = std::numeric_limits<int>::max();
  double degree = std::max(1.0, std::ceil(bytes / budget));
  if (degree >= kMost) return std::numeric_limits<int>::max();
  // The quotient is rounded; the comparison that validity uses decides.
  while (degree > 1 && bytes / (degree - 1) <= budget) --degree;
  while (bytes / degree > budget) ++degree;
  return static_cast<int>(degree);
}

double simple_lower_bound_s(const Batch& batch, const Cluster& cluster, const CostModel& cost) {
  if (batch.sequences.empty()) return 0.0;
  const double budget = activation_budget_bytes(cost, cluster);
  const double ranks = cluster.ranks();
  const double task_step = cost.task_s + step_s(cost);
  const double sequence_step = sequence_step_s(cost);
  double work = 0.0;
  double need = 0.0;  // in ranks
  double longest = 0.0;
  for (const Sequence& sequence : batch.sequences) {
    const double degree = std::max(1, min_degree(cost, cluster, sequence));
    const double own_work = work_s(cost, sequence);
    work += own_work + degree * degree * sequence_step;
    if (budget > 0.0) need += sequence_bytes(cost, sequence) / budget;
    const int least = static_cast<int>(degree);
    const double split = best_split_s(own_work, step_s(cost) + sequence_step, least, std::max(least, cluster.ranks()));
    longest = std::max(longest, cost.task_s + split);
  }
  // A sum that rounding has pushed past a whole number must not ask for one rank more than is true.
  constexpr double kRounding = 1e-12;
  const double tasks = std::max(ranks, std::ceil(need * (1 - kRounding)));
  return std::max((work + task_step * tasks) / ranks, longest);
}

}  // namespace dhp
