#pragma once

#include "plan/planners.h"

namespace dhp::plan {

/// Whether ranks that send at the same time get less than Cluster::inter_node to other nodes, because they share their
/// node's NICs or a switch.
bool shares_links(const Cluster& cluster);

/// What the planner makes of the batch on a cluster that shares links. Task time takes each rank's link for its own, so
/// several plans are made, each for links as slow as others' traffic may make them, and run on a model of the cluster
/// (simulate()), or, where that would take long, replayed as if all ranks always sent. The plan whose tasks end first
/// is taken, of equals the one for links of one's own.
PlanResult plan_for_shared_links(const Planner& planner, const Batch& batch, const Limits& limits,
                                 const PlanOptions& options, std::optional<int> argument);

}  // namespace dhp::plan
