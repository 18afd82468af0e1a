#pragma once

#include <optional>

#include "dhp/planner.h"

namespace dhp {

/// Why no plan with groups of at most `widest` ranks holds the batch; nothing if one does. Names the sequence that
/// needs most. An empty batch is always feasible.
std::optional<Infeasible> find_infeasible(const Batch& batch, const Cluster& cluster, const CostModel& cost,
                                          int widest);

}  // namespace dhp
