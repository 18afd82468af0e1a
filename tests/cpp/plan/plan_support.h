#pragma once

#include <vector>

#include "dhp/planner.h"
#include "support.h"

namespace dhp::test {

inline Cluster make_cluster(int nodes, int ranks_per_node, double memory_bytes) {
  return {nodes, ranks_per_node, memory_bytes, {1e4, 1e-3, 2}, {2e3, 4e-3, 1}};
}

/// Round numbers: a token is a byte, a rank of memory m has room for m tokens of text.
inline CostModel make_cost() {
  CostModel cost;
  cost.name = "round";
  cost.layers = 2;
  cost.task_s = 0.01;
  cost.patch_s = 0.0002;
  cost.forward = {0.001, 1e-5, 0.002, 0.0003, 8.0, 0.0};
  cost.backward = {0.002, 2e-5, 0.004, 0.0006, 24.0, 0.0};
  cost.token_bytes = 1.0;
  cost.patch_bytes = 0.25;
  return cost;
}

inline Batch make_batch(const std::vector<std::int64_t>& tokens) {
  Batch batch;
  for (const std::int64_t length : tokens) {
    batch.sequences.push_back({static_cast<std::int64_t>(batch.sequences.size()), length, 0});
  }
  return batch;
}

inline Task make_task(int id, std::vector<Rank> ranks, std::vector<std::int64_t> sequences, int micro_batch = 0) {
  return {.id = id,
          .ranks = std::move(ranks),
          .sequences = std::move(sequences),
          .micro_batch = micro_batch,
          .start_s = {},
          .end_s = {}};
}

inline Plan make_plan(int ranks, std::vector<Task> tasks, Schedule schedule = Schedule::free) {
  return {.schedule = schedule, .ranks = ranks, .tasks = std::move(tasks), .predicted = {}};
}

/// A task takes one second per hundred tokens and rank; a token is a byte.
inline CostModel seconds_by_length() {
  CostModel cost;
  cost.name = "hand";
  cost.layers = 1;
  cost.forward.token_s = 0.01;
  cost.token_bytes = 1.0;
  return cost;
}

/// The plan; fails the test if the answer is Infeasible.
inline Plan plan_of(const PlanResult& result) {
  if (const auto* infeasible = std::get_if<Infeasible>(&result)) {
    ADD_FAILURE() << "infeasible: " << infeasible->reason;
    return {};
  }
  return std::get<Plan>(result);
}

/// The answer; fails the test if there is a plan.
inline Infeasible infeasible_of(const PlanResult& result) {
  if (std::holds_alternative<Plan>(result)) {
    ADD_FAILURE() << "expected Infeasible";
    return {};
  }
  return std::get<Infeasible>(result);
}

inline void expect_valid(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost) {
  for (const std::string& violation : check_plan(plan, batch, cluster, cost)) ADD_FAILURE() << violation;
}

}  // namespace dhp::test
