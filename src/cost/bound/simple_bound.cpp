// Memory, least degrees and the simple lower bound; docs/bounds.md has the proofs.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

#include "base/number_limits.h"
#include "cost/bound/tighter_bound.h"
#include "cost/terms.h"
#include "dhp/cost_model.h"

namespace dhp {
namespace {

double split_s(const Work& work, double fixed, double degree) { return work.on(degree) + degree * fixed; }

/// The whole degree in [least, most] of the smallest split_s, were `even` all that is shared, and all of it evenly.
/// Convex in it: the best is beside sqrt(even / fixed).
double best_even_split(const Work& work, double even, double fixed, double least, double most) {
  const double best = fixed > 0.0 ? std::sqrt(even / fixed) : most;
  const double below = std::clamp(std::floor(best), least, most);
  const double above = std::min(below + 1, most);
  return split_s(work, fixed, above) < split_s(work, fixed, below) ? above : below;
}

/// The whole degree in [least, most] of the smallest split_s: up to the degree at which the largest frame takes as long
/// as an even share of vision, all work is shared evenly; from there on all but vision is.
double best_split(const Work& work, double fixed, int least, int most) {
  const VisionSeconds& vision = work.vision;
  if (!(vision.frame_s > 0.0) || vision.frame_s * most <= vision.work_s) {
    return best_even_split(work, work.all_s, fixed, least, most);
  }
  const double turn = std::floor(vision.work_s / vision.frame_s);
  double best = 0.0;
  if (turn >= least) best = best_even_split(work, work.all_s, fixed, least, turn);
  const double from = std::max<double>(least, turn + 1);
  if (from > most) return best;
  const double wider = best_even_split(work, work.all_s - vision.work_s, fixed, from, most);
  return best > 0.0 && split_s(work, fixed, best) <= split_s(work, fixed, wider) ? best : wider;
}

/// How many ranks are at least this quick.
struct SpeedLevel {
  double speed = 1.0;
  int ranks = 0;
};

/// By falling speed, ranks out of service apart.
std::vector<SpeedLevel> speed_levels(const Cluster& cluster) {
  if (cluster.rank_speed.empty()) return {{1.0, cluster.ranks()}};
  std::vector<double> speeds = cluster.rank_speed;
  std::sort(speeds.begin(), speeds.end(), std::greater<>());
  std::vector<SpeedLevel> levels;
  for (std::size_t i = 0; i < speeds.size() && speeds[i] > 0.0; ++i) {
    if (levels.empty() || levels.back().speed != speeds[i]) levels.push_back({speeds[i], 0});
    levels.back().ranks = static_cast<int>(i) + 1;
  }
  return levels;
}

/// The largest, over sequences, of the least time that each takes alone in any group, transfers apart. A group of d
/// ranks is at best as quick as the d-th quickest of all.
class Longest {
 public:
  Longest(const Cluster& cluster, const CostModel& cost)
      : cost_(cost), fixed_s_(step_s(cost) + sequence_step_s(cost)), levels_(speed_levels(cluster)) {}

  /// Whether a group of the degree that was best for the longest so far beats that. `least` may be any degree up to the
  /// least that holds the sequence.
  bool beaten(const Work& work, double least) const {
    return least <= degree_ && task_s(work, degree_, speed_) <= longest_s_;
  }

  void add(const Work& work, int least) {
    double best_s = kInfinity;
    double best_degree = 0.0;
    double best_speed = 0.0;
    int from = 1;
    for (const SpeedLevel& level : levels_) {
      const int low = std::max(least, from);
      // A sequence that no group holds gets a figure all the same.
      const int high = &level == &levels_.back() ? std::max(low, level.ranks) : level.ranks;
      from = level.ranks + 1;
      if (low > high) continue;
      const double degree = best_split(work, fixed_s_, low, high);
      const double seconds = task_s(work, degree, level.speed);
      if (seconds >= best_s) continue;
      best_s = seconds;
      best_degree = degree;
      best_speed = level.speed;
    }
    if (best_s <= longest_s_) return;
    longest_s_ = best_s;
    degree_ = best_degree;
    speed_ = best_speed;
  }

  double seconds() const { return longest_s_; }

 private:
  double task_s(const Work& work, double degree, double speed) const {
    return (cost_.task_s + split_s(work, fixed_s_, degree)) / speed;
  }

  const CostModel& cost_;
  double fixed_s_;
  std::vector<SpeedLevel> levels_;
  double longest_s_ = 0.0;
  double degree_ = 0.0;  ///< of the longest
  double speed_ = 1.0;
};

double total_speed(const Cluster& cluster) {
  if (cluster.rank_speed.empty()) return cluster.ranks();
  return std::accumulate(cluster.rank_speed.begin(), cluster.rank_speed.end(), 0.0);
}

}  // namespace

double task_memory_bytes(const CostModel& cost, const Load& load, int degree) {
  return (load.tokens * cost.token_bytes + load.patches * cost.patch_bytes) / degree;
}

double activation_budget_bytes(const CostModel& cost, const Cluster& cluster) {
  return cluster.memory_bytes - cost.state_bytes;
}

bool counts_tokens(const CostModel& cost) {
  return cost.token_bytes == 1.0 && cost.patch_bytes == 0.0 && cost.state_bytes == 0.0;
}

int min_degree(const CostModel& cost, const Cluster& cluster, const Sequence& sequence) {
  const double budget = activation_budget_bytes(cost, cluster);
  if (!(budget > 0.0)) return 0;
  const double bytes = sequence_bytes(cost, sequence);
  if (bytes <= budget) return 1;
  constexpr double kMost = std::numeric_limits<int>::max();
  double degree = std::ceil(bytes / budget);
  if (!(degree < kMost)) return std::numeric_limits<int>::max();
  // The quotient is rounded; the comparison that validity uses decides.
  while (degree > 1 && bytes / (degree - 1) <= budget) --degree;
  while (bytes / degree > budget) ++degree;
  return static_cast<int>(degree);
}

double bound_without_residuals_s(const Batch& batch, const Cluster& cluster, const CostModel& cost) {
  if (batch.sequences.empty()) return 0.0;
  const double budget = activation_budget_bytes(cost, cluster);
  const double sequence_step = sequence_step_s(cost);
  double work = 0.0;
  double need = 0.0;  // in ranks
  Longest longest(cluster, cost);
  // The longest first: most others are beaten by it at once, in whatever order they come.
  const Sequence& first = *std::max_element(batch.sequences.begin(), batch.sequences.end(),
                                            [](const Sequence& a, const Sequence& b) { return a.tokens < b.tokens; });
  longest.add(work_of(cost, first), std::max(1, min_degree(cost, cluster, first)));
  for (const Sequence& sequence : batch.sequences) {
    const int degree = std::max(1, min_degree(cost, cluster, sequence));
    const Work own_work = work_of(cost, sequence);
    work += own_work.all_s + static_cast<double>(degree) * degree * sequence_step;
    if (budget > 0.0) need += sequence_bytes(cost, sequence) / budget;
    if (!longest.beaten(own_work, degree)) longest.add(own_work, degree);
  }
  const double speed = total_speed(cluster);
  const double tasks = std::max(speed, std::ceil(need * (1 - kNeedRounding)));
  return std::max((work + (cost.task_s + step_s(cost)) * tasks) / speed, longest.seconds());
}

double simple_lower_bound_s(const Batch& batch, const Cluster& cluster, const CostModel& cost) {
  return least_residual_factor(cost) * bound_without_residuals_s(batch, cluster, cost);
}

}  // namespace dhp
