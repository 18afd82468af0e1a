#pragma once

#include <string>
#include <vector>

#include "dhp/plan.h"

namespace dhp {

/// A rank that stands idle before a task of its own, or after its last one.
struct Wait {
  Rank rank = 0;
  double seconds = 0.0;
  double from_s = 0.0;
  int task = -1;      ///< the task waited for; -1: the end of the step
  std::string cause;  ///< "waits for rank 3, busy with task 7"
};

struct Explanation {
  double makespan_s = 0.0;
  double lower_bound_s = 0.0;  ///< the tighter one; 0 for a plan that uses all_to_all
  double gap = 0.0;
  double idle_share = 0.0;
  /// What bounds the batch: "total work of 512 sequences" or "sequence 17 (131072 tokens)"; "transfers of …" or "memory
  /// of …" these, where the bound would be 5 % lower if that cost nothing.
  std::string limited_by;
  std::vector<std::pair<int, int>> degrees;  ///< (degree, tasks), ascending
  std::vector<Wait> longest_waits;           ///< three at most, longest first
};

/// The plan must be valid (check_plan).
Explanation explain_plan(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost);

}  // namespace dhp
