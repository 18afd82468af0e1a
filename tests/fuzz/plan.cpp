#include "dhp/plan.h"

#include "dhp/explain.h"
#include "readers.h"

namespace dhp::fuzz {

void plan(std::string_view text) {
  const auto plan = round_trip<Plan>(text, parse_plan, parse_plan);
  if (!plan) return;
  const Cluster cluster{2, 2, 1e4, {1e9, 1e-5, 7}, {1e8, 1e-4, 1}, {1.0, 0.5, 0.0, 1.0}};
  const Batch batch{.sequences = {{0, 1, 0}, {1, 1000, 400}, {7, 10'000, 0}, {-3, 20, 0}}};
  CostModel cost;
  cost.name = "fuzz";
  cost.layers = 2;
  cost.task_s = 0.01;
  cost.forward = {1e-5, 1e-8, 1e-3, 1e-4, 100, 300};
  cost.backward = {2e-5, 2e-8, 2e-3, 2e-4, 300, 900};
  cost.query_heads = 4;
  cost.token_bytes = 1.0;
  if (check_plan(*plan, batch, cluster, cost).empty()) {
    // A valid plan can be used.
    const Explanation explanation = explain_plan(*plan, batch, cluster, cost);
    require(explanation.makespan_s >= explanation.lower_bound_s * (1 - 1e-9), "a valid plan keeps the bound");
    Plan annotated = *plan;
    annotate(annotated, batch, cluster, cost);
    require(check_plan(annotated, batch, cluster, cost).empty(), "a valid plan stays valid with its predictions");
    require(!to_json(annotated).empty(), "a valid plan with its predictions can be written");
  }
}

}  // namespace dhp::fuzz
