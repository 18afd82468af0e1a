#pragma once

#include <cstdint>

#include "plan/limits.h"

namespace dhp::plan {

/// A plan found by searching degrees and orders of groups; see search.h. Large clusters are cut into cells.
struct SearchedPlan {
  Plan plan;  ///< with its number of ranks
  double makespan_s = 0.0;
  double bound_s = 0.0;  ///< simple_lower_bound_s()
};
/// The batch is not empty, and the limits hold every sequence of it. `ticks` is the work to spend.
SearchedPlan plan_by_search(const Batch& batch, const Limits& limits, std::int64_t ticks);

}  // namespace dhp::plan
