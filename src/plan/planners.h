#pragma once

#include <optional>

#include "dhp/planner.h"

namespace dhp {

// The planners behind plan_batch(). The batch is valid and not empty, the options are checked. Plans come without
// annotation: plan_batch() adds it.

/// Memory-aware best-fit decreasing bins, exact degrees, lockstep. Ref: Niu et al., arXiv 2602.21788.
PlanResult plan_paper(const Batch& batch, const Cluster& cluster, const CostModel& cost, const PlanOptions& options);

/// One context-parallel degree for all, as frameworks run; without `degree` the best divisor of the ranks.
PlanResult plan_static(const Batch& batch, const Cluster& cluster, const CostModel& cost, std::optional<int> degree);

/// All divisors of a positive number, ascending.
std::vector<int> divisors(int number);

}  // namespace dhp
