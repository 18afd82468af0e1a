#include "cost/bound/least_transfer.h"

#include <algorithm>
#include <functional>

#include "base/index.h"
#include "base/number_limits.h"
#include "cost/transfer.h"

namespace dhp {
namespace {

/// Wider groups over several nodes get a figure that no layout is below: there are too many to look at each.
constexpr int kWidestExact = 1024;

/// Walks the ways in which a group can lie on the nodes: on how many, with how many members at least and at most on
/// each.
class Layouts {
 public:
  Layouts(const Cluster& cluster, const CostModel& cost) : cluster_(cluster), cost_(cost) {
    std::vector<int> room(static_cast<std::size_t>(cluster.nodes), 0);
    for (const Rank rank : cluster.live_ranks()) ++room[static_cast<std::size_t>(cluster.node_of(rank))];
    std::sort(room.begin(), room.end(), std::greater<>());
    while (!room.empty() && room.back() == 0) room.pop_back();
    room_ = std::move(room);
    // filled_[k][g]: ranks on the k roomiest nodes, g on each at most.
    const auto most = static_cast<std::size_t>(cluster.ranks_per_node);
    filled_.assign(room_.size() + 1, std::vector<int>(most + 1, 0));
    for (std::size_t k = 0; k < room_.size(); ++k) {
      for (std::size_t g = 1; g <= most; ++g) {
        filled_[k + 1][g] = filled_[k][g] + std::min(room_[k], static_cast<int>(g));
      }
    }
  }

  int ranks() const { return filled_.back().back(); }

  LeastTransfer least(int degree) {
    least_ = {kInfinity, kInfinity};
    const int most_nodes = std::min(degree, static_cast<int>(room_.size()));
    int nodes = 1;
    while (filled_[index(nodes)].back() < degree) ++nodes;
    if (degree > kWidestExact && nodes > 1) return below_all(degree, nodes);
    for (; nodes < most_nodes; ++nodes) {
      if (no_better_from(degree, nodes)) break;
      add_spread(degree, nodes);
    }
    // On as many nodes as there are: maybe one rank on each, which uses no link inside a node.
    add_spread(degree, most_nodes);
    return least_;
  }

 private:
  /// Whether groups on `nodes` nodes or more, with two members on one of them, have no quicker link than found so far.
  /// Every exchange sends at least this much between nodes; latency grows with neither.
  bool no_better_from(int degree, int nodes) const {
    if (nodes == 1) return false;
    const double latency = std::max(cluster_.intra_node.latency_s, cluster_.inter_node.latency_s);
    return least_.fixed_s <= (degree - 1) * (cost_.layers * latency) &&
           least_.per_byte_s <= least_between_nodes(degree, nodes);
  }

  /// Seconds a byte that direct and hierarchical, and ring no less, take between `nodes` nodes or more.
  double least_between_nodes(int degree, int nodes) const {
    return std::min(degree - degree / nodes, nodes - 1) / cluster_.inter_node.bandwidth_bytes_per_s;
  }

  LeastTransfer below_all(int degree, int least_nodes) const {
    return {(degree - 1) * (cost_.layers * cluster_.inter_node.latency_s), least_between_nodes(degree, least_nodes)};
  }

  /// For a given number of nodes and of members on the emptiest, the fewer on the fullest the better.
  void add_spread(int degree, int nodes) {
    if (nodes == 1) return add({degree, 1, degree, degree});
    const std::vector<int>& filled = filled_[index(nodes) - 1];
    const int most_fewest = std::min(degree / nodes, room_[index(nodes) - 1]);
    for (int fewest = 1; fewest <= most_fewest; ++fewest) {
      const int rest = degree - fewest;
      if (filled.back() < rest) continue;
      int most = std::max(fewest, (rest + nodes - 2) / (nodes - 1));
      while (filled[index(most)] < rest) ++most;
      add({degree, nodes, most, fewest});
    }
  }

  void add(const GroupShape& shape) {
    least_.fixed_s = std::min(least_.fixed_s, transfer_latency_s(cost_, cluster_, shape));
    for (const Exchange exchange : {Exchange::ring, Exchange::direct, Exchange::hierarchical}) {
      least_.per_byte_s = std::min(least_.per_byte_s, transfer_seconds_per_byte(cluster_, shape, exchange));
    }
  }

  const Cluster& cluster_;
  const CostModel& cost_;
  std::vector<int> room_;  // ranks in service of every node that has any, falling
  std::vector<std::vector<int>> filled_;
  LeastTransfer least_;
};

}  // namespace

std::vector<LeastTransfer> least_transfers(const Cluster& cluster, const CostModel& cost) {
  Layouts layouts(cluster, cost);
  std::vector<LeastTransfer> result(static_cast<std::size_t>(layouts.ranks()) + 1);
  for (std::size_t degree = 2; degree < result.size(); ++degree) {
    result[degree] = layouts.least(static_cast<int>(degree));
  }
  return result;
}

double least_task_s(const CostModel& cost, const TaskWork& work, int degree, double speed, const LeastTransfer& least) {
  const double d = degree;
  const double inverse = 1 / d;
  const double slowness = 1 / speed;
  const double fixed = step_s(cost) + work.sequences * sequence_step_s(cost);
  double seconds = (cost.task_s + work.work.all_s * inverse + d * fixed) * slowness;
  if (degree == 1) return seconds;
  seconds += std::max(0.0, work.work.vision.frame_s - work.work.vision.work_s * inverse) * slowness;
  const double shard_tokens = work.tokens * inverse;
  const double half_pairs = work.tokens_squared * inverse * inverse / 2;  // of a shard and one other
  for (const PassCost* pass : {&cost.forward, &cost.backward}) {
    const double sent = least.fixed_s + pass->ring_bytes_per_token * shard_tokens * least.per_byte_s;
    const double step = pass->pair_s * half_pairs + pass->step_s + work.sequences * pass->sequence_step_s;
    seconds += std::max(0.0, sent - (d - 1) * step * slowness);
  }
  return seconds;
}

}  // namespace dhp
