// A program outside the tree that plans with the installed package.
#include <dhp/peers.h>
#include <dhp/planner.h>

#include <cstdio>

int main() {
  const dhp::Link link{.bandwidth_bytes_per_s = 1e10, .latency_s = 1e-5};
  const dhp::Cluster cluster{.ranks_per_node = 4, .memory_bytes = 100.0, .intra_node = link, .inter_node = link};
  const dhp::PassCost pass{.token_s = 1e-3, .pair_s = 1e-6, .step_s = 1e-4, .ring_bytes_per_token = 64.0};
  const dhp::CostModel cost{.layers = 1, .forward = pass, .backward = pass, .token_bytes = 1.0};
  const dhp::Batch batch{{{.id = 0, .tokens = 250}, {.id = 1, .tokens = 40}}};
  dhp::add_peers();
  for (const char* planner : {"free", "paper"}) {
    const auto result = dhp::plan_batch(batch, cluster, cost, {.planner = planner});
    const auto* plan = std::get_if<dhp::Plan>(&result);
    if (!plan || !dhp::check_plan(*plan, batch, cluster, cost).empty()) return 1;
    std::printf("%s\n", dhp::to_json(*plan).c_str());
  }
  return 0;
}
