#pragma once

#include "dhp/bound.h"

namespace dhp {

/// As in bound.h. Of more than `few` sequences, charges are chosen for a quarter as many.
LowerBound tighter_lower_bound(const Batch& batch, const Cluster& cluster, const CostModel& cost, std::size_t few);

/// simple_lower_bound_s() without residual factors.
double bound_without_residuals_s(const Batch& batch, const Cluster& cluster, const CostModel& cost);

}  // namespace dhp
