#pragma once

#include "dhp/cost_model.h"

namespace dhp {

// The transfers of one pass of a group, X = transfer_latency_s + bytes of a shard * transfer_seconds_per_byte. The
// latency is the same for ring, direct and hierarchical, so which of them is quickest does not depend on the load.

double transfer_latency_s(const CostModel& cost, const Cluster& cluster, const GroupShape& shape);

/// Not for all_to_all.
double transfer_seconds_per_byte(const Cluster& cluster, const GroupShape& shape, Exchange exchange);

/// Bytes per second that a rank can send to the other `members - 1` of its group on one node.
double bandwidth_inside(const Cluster& cluster, int members);

/// All exchanges of one pass of all_to_all.
struct AllToAll {
  double latency_s = 0.0;
  double bytes_s = 0.0;
  double bytes = 0.0;  ///< that each rank sends to the others
};
AllToAll all_to_all_transfer(const CostModel& cost, const Cluster& cluster, const PassCost& pass, const Load& load,
                             const GroupShape& shape);

/// The shape at the speed at which the coefficients alone give the group's compute time: residuals are in it.
GroupShape with_residual(const CostModel& cost, const Load& load, GroupShape shape);

/// The part of task_seconds() in which the ranks of the group do nothing but wait for transfers. 0 on one rank.
double exposed_transfer_s(const CostModel& cost, const Cluster& cluster, const Load& load, const GroupShape& shape,
                          Exchange exchange);

}  // namespace dhp
