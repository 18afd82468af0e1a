// Whether a plan can be walked at all; whether it is right is the checker's business.

#include "formats/shape.h"

#include <cstdint>
#include <string>

#include "dhp/error.h"
#include "dhp/plan.h"

namespace dhp {
namespace {

[[noreturn]] void fail(const std::string& path, long long found, const std::string& expected) {
  throw InputError("plan", path, "found " + std::to_string(found) + ", expected " + expected);
}

std::string path_of(std::size_t task, const char* field) { return "tasks[" + std::to_string(task) + "]." + field; }

}  // namespace

void require_ranks(const Cluster& cluster) {
  const std::int64_t ranks = std::int64_t{cluster.nodes} * cluster.ranks_per_node;
  if (cluster.nodes < 1 || cluster.ranks_per_node < 1 || ranks > kMaxRanks) {
    throw InputError("cluster", "nodes",
                     "found " + std::to_string(cluster.nodes) + " of " + std::to_string(cluster.ranks_per_node) +
                         " ranks, expected at least 1 of each, and at most " + std::to_string(kMaxRanks) + " ranks");
  }
  if (cluster.rank_speed.empty() || std::ssize(cluster.rank_speed) == ranks) return;
  throw InputError("cluster", "rank_speed",
                   "found " + std::to_string(cluster.rank_speed.size()) + " speeds, expected one for each of the " +
                       std::to_string(ranks) + " ranks");
}

void require_shape(const Plan& plan) {
  if (plan.ranks < 0 || plan.ranks > kMaxRanks) fail("ranks", plan.ranks, "0 to " + std::to_string(kMaxRanks));
  std::vector<std::size_t> seen(static_cast<std::size_t>(plan.ranks), 0);  // by rank: 1 + the last task that has it
  for (std::size_t i = 0; i < plan.tasks.size(); ++i) {
    const Task& task = plan.tasks[i];
    if (task.id != static_cast<int>(i)) fail(path_of(i, "id"), task.id, std::to_string(i) + ", its position");
    if (task.micro_batch < 0) fail(path_of(i, "micro_batch"), task.micro_batch, "at least 0");
    if (task.ranks.empty()) throw InputError("plan", path_of(i, "ranks"), "found no rank, expected at least one");
    for (const Rank rank : task.ranks) {
      if (rank < 0 || rank >= plan.ranks) {
        fail(path_of(i, "ranks"), rank, "0 to " + std::to_string(plan.ranks - 1));
      }
      std::size_t& last = seen[static_cast<std::size_t>(rank)];
      if (last == i + 1) fail(path_of(i, "ranks"), rank, "distinct ranks, but it stands there twice");
      last = i + 1;
    }
  }
}

void require_shape(const Plan& plan, const Cluster& cluster) {
  require_ranks(cluster);
  if (plan.ranks != cluster.ranks()) {
    fail("ranks", plan.ranks, std::to_string(cluster.ranks()) + ", the ranks of the cluster");
  }
  require_shape(plan);
}

}  // namespace dhp
