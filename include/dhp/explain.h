#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "dhp/planner.h"

namespace dhp {

/// A rank that stands idle before a task of its own, or after its last one.
struct Wait {
  Rank rank = 0;
  double seconds = 0.0;
  double from_s = 0.0;
  int task = -1;      ///< the task waited for; -1: the end of the step
  std::string cause;  ///< "waits for rank 3, busy with task 7"
  bool operator==(const Wait&) const = default;
};

/// What bounds a plan and where its ranks wait.
struct Explanation {
  double makespan_s = 0.0;
  double lower_bound_s = 0.0;  ///< the tighter one; 0 for a plan that uses all_to_all
  double gap = 0.0;
  double idle_share = 0.0;
  /// What bounds the batch: "total work of 512 sequences" or "sequence 17 (131072 tokens)"; prefixed with
  /// "transfers of" or "memory of" if removing that cost would lower the bound by 5 %.
  std::string limited_by;
  std::vector<std::pair<int, int>> degrees;  ///< (degree, tasks), ascending
  std::vector<Wait> longest_waits;           ///< three at most, longest first
  bool operator==(const Explanation&) const = default;
};

/// The plan must be valid (check_plan), here and below: of another, figures mean nothing. Each throws InputError
/// for a plan that cannot be walked (require_shape), and for a batch, a cost or options out of range (validate).
Explanation explain_plan(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost);

/// Why a task has the degree and the start that it has. Worked out from the plan, not told by its planner: what the
/// next narrower degree that the options allow would have meant, and which option allows no more.
struct TaskReason {
  int task = 0;
  std::int64_t tokens = 0;
  double start_s = 0.0;
  double seconds = 0.0;
  std::string degree;  ///< "memory: 3 ranks are the fewest that hold it"
  std::string start;   ///< "starts when rank 3 is done with task 4"
  bool operator==(const TaskReason&) const = default;
};

/// One a task, in plan order. `options` are those that the plan was made with; its planner is the one that it names.
std::vector<TaskReason> explain_tasks(const Plan& plan, const Batch& batch, const Cluster& cluster,
                                      const CostModel& cost, const PlanOptions& options = {});

/// What the step would take after one change.
struct Change {
  std::string what;         ///< "one node more"
  double from_s = 0.0;      ///< the step as it is, by the same method; 0 where that has no answer
  double makespan_s = 0.0;  ///< 0 where there is no answer
  std::string no_answer;    ///< why
  bool operator==(const Change&) const = default;
};

struct WhatIf {
  std::string method;  ///< "planned again by free", or "lower bounds" where the plan names no planner that is known
  /// Everything as it is: the plan's makespan, unless it breaks the options or planning again does better; 0 where
  /// there is no answer.
  double from_s = 0.0;
  std::string no_answer = {};  ///< why
  std::vector<Change> changes = {};
  bool operator==(const WhatIf&) const = default;
};

/// What one change would buy: more ranks, more memory, quicker links, no barriers. Plans again with `options`, but with
/// the planner that the plan names; where the plans of the unchanged cluster would be quicker, these are kept, so that
/// no improvement looks like a loss. Takes about as long as planning six times.
WhatIf explain_changes(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost,
                       const PlanOptions& options = {});

}  // namespace dhp
