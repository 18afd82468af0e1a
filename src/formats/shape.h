#pragma once

#include "dhp/cluster.h"

namespace dhp {

/// Throws InputError unless ranks of the cluster can be counted and looked up: its sizes are in range, and it has no
/// speeds or one for each rank. validate() looks at all its numbers.
void require_ranks(const Cluster& cluster);

}  // namespace dhp
