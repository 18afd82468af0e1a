#include "dhp/metrics.h"

#include <algorithm>

#include "base/index.h"
#include "cost/transfer.h"
#include "formats/sequence_index.h"

namespace dhp {

std::vector<int> count_peers(const Plan& plan) {
  require_shape(plan);
  const std::size_t ranks = index(plan.ranks);
  std::vector<std::vector<std::size_t>> shared(ranks);  // tasks of each rank that others are in too
  for (std::size_t i = 0; i < plan.tasks.size(); ++i) {
    if (plan.tasks[i].degree() == 1) continue;
    for (const Rank rank : plan.tasks[i].ranks) shared[index(rank)].push_back(i);
  }
  std::vector<int> peers(ranks, 0);
  std::vector<Rank> met;  // of one rank at a time: of all together it would grow with the square of a wide group
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    if (rank > 0 && shared[rank] == shared[rank - 1]) {
      peers[rank] = peers[rank - 1];
      continue;
    }
    met.clear();
    for (const std::size_t i : shared[rank]) {
      met.insert(met.end(), plan.tasks[i].ranks.begin(), plan.tasks[i].ranks.end());
    }
    std::sort(met.begin(), met.end());
    const auto distinct = static_cast<int>(std::unique(met.begin(), met.end()) - met.begin());
    peers[rank] = std::max(0, distinct - 1);  // itself
  }
  return peers;
}

PlanMetrics plan_metrics(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost) {
  require_shape(plan, cluster);
  validate(batch, "batch");
  validate(cost, "cost");
  const Timeline timeline = replay(plan, predict_task_seconds(plan, batch, cluster, cost));
  const SequenceIndex by_id(batch);

  PlanMetrics metrics;
  metrics.makespan_s = timeline.makespan_s;
  const auto ranks_in_service = static_cast<int>(cluster.live_ranks().size());
  metrics.idle_share = timeline.idle_share(ranks_in_service);
  for (std::size_t i = 0; plan.schedule == Schedule::lockstep && i < plan.tasks.size(); ++i) {
    const double seconds = timeline.end_s[i] - timeline.start_s[i];
    metrics.slowest_micro_batch_s = std::max(metrics.slowest_micro_batch_s, seconds);
  }
  metrics.memory_bytes.assign(index(plan.ranks), 0.0);
  for (std::size_t i = 0; i < plan.tasks.size(); ++i) {
    const Task& task = plan.tasks[i];
    const Load load = by_id.load_of(plan, i);
    const GroupShape shape = shape_of(cluster, task.ranks);
    metrics.exposed_transfer_s += task.degree() * exposed_transfer_s(cost, cluster, load, shape, task.exchange);
    const double bytes = task_memory_bytes(cost, load, task.degree());
    for (const Rank rank : task.ranks) {
      metrics.memory_bytes[index(rank)] = std::max(metrics.memory_bytes[index(rank)], bytes);
    }
  }
  const double capacity_s = timeline.makespan_s * ranks_in_service;
  if (capacity_s > 0.0) metrics.exposed_transfer_share = metrics.exposed_transfer_s / capacity_s;
  for (const double bytes : metrics.memory_bytes)
    metrics.peak_memory_bytes = std::max(metrics.peak_memory_bytes, bytes);
  const double budget = activation_budget_bytes(cost, cluster);
  if (budget > 0.0) metrics.peak_memory_share = metrics.peak_memory_bytes / budget;
  metrics.peers = count_peers(plan);
  for (const int peers : metrics.peers) metrics.most_peers = std::max(metrics.most_peers, peers);
  return metrics;
}

}  // namespace dhp
