#pragma once

#include <vector>

#include "cost/terms.h"
#include "dhp/cost_model.h"

namespace dhp {

/// Least seconds that the transfers of one pass can take, over all groups of ranks in service and over ring, direct and
/// hierarchical: `fixed_s` whatever is sent, `per_byte_s` a byte of a shard. The two minima may stem from different
/// groups.
struct LeastTransfer {
  double fixed_s = 0.0;
  double per_byte_s = 0.0;
};

/// One entry a degree, from 0 (unused) to the number of ranks in service.
std::vector<LeastTransfer> least_transfers(const Cluster& cluster, const CostModel& cost);

/// What the least time of a task depends on of its sequences.
struct TaskWork {
  double sequences = 1.0;
  double tokens = 0.0;
  double tokens_squared = 0.0;
  Work work = {};
};

/// Seconds that no task of this degree is below whose slowest rank has this speed: t(d) of docs/bounds.md.
double least_task_s(const CostModel& cost, const TaskWork& work, int degree, double speed, const LeastTransfer& least);

}  // namespace dhp
