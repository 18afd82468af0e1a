#pragma once

#include <cstdint>

#include "dhp/planner.h"

namespace dhp::test {

/// All that plan_batch() takes.
struct Case {
  Batch batch = {};
  Cluster cluster = {};
  CostModel cost = {};
  PlanOptions options = {};
};

/// A case at random, the same for a seed on every machine. 1 to 40 ranks on 1 to 6 nodes, 0 to 80 sequences of kinds
/// that planners find hard; cost models in which any term may rule or be absent; one case in two has constraints. A few
/// are infeasible. `planner` is set into the options.
Case random_case(std::uint64_t seed, const std::string& planner);

}  // namespace dhp::test
