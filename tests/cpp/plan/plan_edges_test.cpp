// Batches at the edges: one sequence, fewer than ranks, one more than ranks, all tiny, one giant, primes, on clusters
// of odd sizes. Plans are valid; how far each stays above the bounds is printed and recorded, not judged.

#include <algorithm>
#include <cstdio>

#include "dhp/bound.h"
#include "plan_support.h"

namespace dhp::plan_edges_test {
namespace {

struct Edge {
  const char* name;
  std::vector<std::int64_t> tokens;
};

std::vector<Edge> edges(int ranks, std::int64_t tokens_per_rank) {
  const auto times = [](int count, std::int64_t tokens) {
    return std::vector<std::int64_t>(static_cast<std::size_t>(std::max(count, 1)), tokens);
  };
  const std::int64_t middle = tokens_per_rank / 2;
  std::vector<Edge> made = {{"one of one rank", {tokens_per_rank}},
                            {"one of half the ranks", {std::max<std::int64_t>(1, ranks / 2) * tokens_per_rank}},
                            {"fewer than ranks", times(ranks * 2 / 3, middle)},
                            {"as many as ranks", times(ranks, middle)},
                            {"one more than ranks", times(ranks + 1, middle)},
                            {"all tiny", times(8 * ranks, 16)},
                            {"one giant", {ranks * tokens_per_rank}}};
  Edge giant{"one giant and many short", times(6 * ranks, 300)};
  giant.tokens.push_back(ranks * tokens_per_rank);
  made.push_back(giant);
  Edge primes{"primes", {}};
  for (const std::int64_t prime : {101, 211, 503, 1009, 2003, 4001, 6007, 7919}) {
    for (int i = 0; i < ranks; ++i) primes.tokens.push_back(prime);
  }
  made.push_back(primes);
  return made;
}

Cluster cluster_of(int nodes, int ranks_per_node) {
  Cluster cluster = read_cluster(test::case_file("cluster_910b_8x8.json"));
  cluster.nodes = nodes;
  cluster.ranks_per_node = ranks_per_node;
  return cluster;
}

/// Times over the simple and the tighter bound.
struct Ratios {
  double simple = 1.0;
  double tighter = 1.0;
};

Ratios plan_edge(const Edge& edge, const Cluster& cluster, const CostModel& cost, const char* planner) {
  const Batch batch = test::make_batch(edge.tokens);
  const Plan plan = test::plan_of(plan_batch(batch, cluster, cost, {.planner = planner}));
  if (plan.tasks.empty()) return {};
  test::expect_valid(plan, batch, cluster, cost);
  const double makespan = plan.predicted->makespan_s;
  return {makespan / simple_lower_bound_s(batch, cluster, cost),
          makespan / tighter_lower_bound_s(batch, cluster, cost)};
}

TEST(PlanEdges, ValidOnOddClusters) {
  const CostModel cost = read_cost_model(test::case_file("cost_qwen3-vl-8b_8192.json"));
  constexpr int kShapes[][2] = {{1, 1}, {1, 6}, {3, 8}, {5, 8}, {7, 8}, {4, 25}};
  std::printf("%6s  %-26s %18s %18s\n", "ranks", "batch", "free", "lockstep");
  for (const auto& shape : kShapes) {
    const Cluster cluster = cluster_of(shape[0], shape[1]);
    for (const Edge& edge : edges(cluster.ranks(), 8192)) {
      SCOPED_TRACE(testing::Message() << edge.name << " on " << cluster.ranks() << " ranks");
      const Ratios free = plan_edge(edge, cluster, cost, "free");
      const Ratios lockstep = plan_edge(edge, cluster, cost, "lockstep");
      std::printf("%6d  %-26s  %7.3f (%7.3f)  %7.3f (%7.3f)\n", cluster.ranks(), edge.name, free.simple, free.tighter,
                  lockstep.simple, lockstep.tighter);
      EXPECT_GE(free.tighter, 1.0 - 1e-9);
      EXPECT_GE(lockstep.tighter, 1.0 - 1e-9);
    }
  }
}

}  // namespace
}  // namespace dhp::plan_edges_test
