#pragma once

#include <vector>

#include "dhp/plan.h"

namespace dhp {

/// Positions in a task's group: from whom every member gets a shard in transfer `step`, 1 to degree - 1, of an exchange
/// by ring, direct or hierarchical; the rules of src/torch/exchange_schedule.h. For all_to_all nobody.
std::vector<int> senders(const Task& task, const Cluster& cluster, int step);

}  // namespace dhp
