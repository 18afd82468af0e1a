#pragma once

#include "dhp/bound.h"

namespace dhp {

/// As in bound.h, with the weaker form beyond `most_entries` sequences times ranks.
LowerBound tighter_lower_bound(const Batch& batch, const Cluster& cluster, const CostModel& cost,
                               std::size_t most_entries);

}  // namespace dhp
