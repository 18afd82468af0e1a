#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "plan/limits.h"

namespace dhp::plan {

// Plans all of whose tasks run on lanes, blocks of `width` ranks of one node: fewer and longer sums of task times,
// among which the unluckiest decides, at the price of more transfers.

/// Widths of lanes that the cluster and the options leave room for, ascending; few, and fewer on large clusters.
std::vector<int> lane_widths(const Limits& limits, const PlanOptions& options);

/// Plans a batch on a cluster whose ranks are lanes; nothing where it cannot.
using LanePlanner =
    std::function<std::optional<Plan>(const Batch& batch, const Limits& limits, const PlanOptions& options)>;

/// The plan of lanes of one of these widths; nothing where sequences cannot be cut that way. `batch` is sorted by id.
/// Where lanes run `free`, sequences that are too short for a lane run at the end of one on fewer ranks.
std::optional<Plan> plan_lanes(const Batch& batch, const Limits& limits, const PlanOptions& options, int width,
                               const LanePlanner& planner);

}  // namespace dhp::plan
