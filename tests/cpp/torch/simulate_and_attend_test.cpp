// One program that simulates and attends: types of one name in both would corrupt memory here, most of all in builds
// without optimization (the sanitizers').
#include <gtest/gtest.h>

#include "dhp/planner.h"
#include "dhp/simulator.h"
#include "torch/attention/shard_layout.h"

namespace dhp::rt::simulate_and_attend_test {
namespace {

TEST(SimulateAndAttend, InOneProgram) {
  const Link link{.bandwidth_bytes_per_s = 1e6, .latency_s = 1e-5};
  const Cluster cluster{.ranks_per_node = 4, .memory_bytes = 100.0, .intra_node = link, .inter_node = link};
  const PassCost pass{.token_s = 1e-3, .pair_s = 1e-6, .step_s = 1e-4, .ring_bytes_per_token = 64.0};
  const CostModel cost{.layers = 1, .forward = pass, .backward = pass, .token_bytes = 1.0};
  const Batch batch{{{.id = 0, .tokens = 250}, {.id = 1, .tokens = 40}, {.id = 2, .tokens = 12}}};
  const Plan plan = std::get<Plan>(plan_batch(batch, cluster, cost, {}));

  const Simulation simulation = simulate(plan, batch, cluster, cost, {.recorded_steps = 1});
  ASSERT_FALSE(simulation.steps.empty());
  std::vector<dhp::Segment> simulated;
  for (const dhp::Segment& segment : simulation.steps.front().segments) simulated.push_back(segment);
  EXPECT_FALSE(simulated.empty());

  // 24 tokens on two ranks: two chunks of 6 each. The own block is causal chunk by chunk, the other's is half seen.
  const ShardLayout layout({24}, 2, 1, true);
  std::vector<Segment> attended;
  for (int owner = 0; owner < 2; ++owner) {
    for (const Segment& segment : layout.block(owner, false)) attended.push_back(segment);
  }
  std::int64_t pairs = 0;
  for (const Segment& segment : attended) pairs += segment.q_rows * segment.kv_rows;
  EXPECT_GT(pairs, 0);
  for (const dhp::Segment& segment : simulated) EXPECT_LE(segment.start_s, segment.end_s);
}

}  // namespace
}  // namespace dhp::rt::simulate_and_attend_test
