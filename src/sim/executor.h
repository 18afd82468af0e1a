#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "dhp/simulator.h"
#include "sim/program.h"

namespace dhp::sim {

/// Runs one step: every task as soon as its ranks are ready and the schedule lets it, then the gradient reduction.
/// Fills the step's tasks, bytes, segments (if `record`), tasks_end_s and reduce_end_s.
///
/// Programs stand in plan order; `reduce` may be empty. Throws InputError where a time does not fit a double.
SimulatedStep execute(const Plan& plan, const Cluster& cluster, const std::vector<Program>& programs,
                      const Program& reduce, bool record);

/// The same without records; nothing where shared links need more than so many looks (SharedLinks::looks()).
std::optional<SimulatedStep> execute_within(const Plan& plan, const Cluster& cluster,
                                            const std::vector<Program>& programs, const Program& reduce,
                                            std::int64_t most_looks);

}  // namespace dhp::sim
