#include "plan/shared_links.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "dhp/simulator.h"

namespace dhp::plan {
namespace {

/// What a rank can send to other nodes while all ranks do.
double least_bandwidth(const Cluster& cluster) {
  double bandwidth = cluster.inter_node.bandwidth_bytes_per_s;
  if (cluster.node_bandwidth_bytes_per_s > 0.0) {
    bandwidth = std::min(bandwidth, cluster.node_bandwidth_bytes_per_s / cluster.ranks_per_node);
  }
  if (cluster.switch_bandwidth_bytes_per_s > 0.0) {
    bandwidth = std::min(bandwidth, cluster.switch_bandwidth_bytes_per_s / cluster.ranks());
  }
  return bandwidth;
}

/// A cluster and options to plan with instead of the given ones.
struct Assumed {
  Cluster cluster;
  PlanOptions options;
};

/// From links as they are to the slowest, then groups on two nodes or one, where nothing else limits them.
std::vector<Assumed> assumptions(const Cluster& cluster, const PlanOptions& options) {
  const double most = cluster.inter_node.bandwidth_bytes_per_s;
  const double least = least_bandwidth(cluster);
  std::vector<Assumed> all;
  const auto assume = [&](double bandwidth, int nodes) {
    all.push_back({cluster, options});
    all.back().cluster.inter_node.bandwidth_bytes_per_s = bandwidth;
    if (nodes > 0) all.back().options.max_peers = nodes * cluster.ranks_per_node - 1;
  };
  for (const double bandwidth : {most, std::sqrt(most * least), least}) assume(bandwidth, 0);
  if (options.max_peers > 0 || options.within_node) return all;
  assume(most, 2);
  assume(least, 2);
  if (cluster.ranks_per_node > 1) assume(most, 1);
  return all;
}

}  // namespace

bool shares_links(const Cluster& cluster) {
  return cluster.nodes > 1 && least_bandwidth(cluster) < cluster.inter_node.bandwidth_bytes_per_s;
}

PlanResult plan_for_shared_links(const Planner& planner, const Batch& batch, const Limits& limits,
                                 const PlanOptions& options, std::optional<int> argument) {
  constexpr double kNothingLost = 1.0 + 1e-4;  // to links shared
  constexpr std::int64_t kMostLooksAtLinks = 300'000'000;
  const Cluster& cluster = limits.cluster();
  Cluster crowded = cluster;
  crowded.inter_node.bandwidth_bytes_per_s = least_bandwidth(cluster);
  const auto alone_s = [&](const Plan& plan, const Cluster& on) {
    return replay(plan, predict_task_seconds(plan, batch, on, limits.cost())).makespan_s;
  };
  bool is_simulated = true;
  std::optional<Plan> best;
  double best_s = 0.0;
  for (const Assumed& assumed : assumptions(cluster, options)) {
    const Limits own(assumed.cluster, limits.cost(), assumed.options, planner.exchanges);
    if (own.find_infeasible(batch)) continue;
    PlanResult result = planner.plan(batch, own, assumed.options, argument);
    Plan* plan = std::get_if<Plan>(&result);
    if (plan == nullptr) {
      if (best) continue;
      return result;
    }
    plan->ranks = cluster.ranks();
    plan->schedule = planner.schedule;
    std::optional<double> seconds;
    if (is_simulated) seconds = tasks_end_s(*plan, batch, cluster, limits.cost(), kMostLooksAtLinks);
    if (!seconds) {
      // So many streams at once that all ranks may as well be taken to send all the time.
      if (is_simulated && best) best_s = alone_s(*best, crowded);
      is_simulated = false;
      seconds = alone_s(*plan, crowded);
    }
    const bool first = !best;
    if (!first && *seconds >= best_s) continue;
    best = std::move(*plan);
    best_s = *seconds;
    if (first && best_s <= alone_s(*best, cluster) * kNothingLost) break;
  }
  return std::move(*best);
}

}  // namespace dhp::plan
