#pragma once

#include "dhp/simulator.h"

namespace dhp::sim {

/// Throws InputError unless the plan can be walked on the cluster and the step has its tasks, ranks and segments.
void require_step(const Plan& plan, const Cluster& cluster, const SimulatedStep& step);
/// The same without a cluster.
void require_step(const Plan& plan, const SimulatedStep& step);

}  // namespace dhp::sim
