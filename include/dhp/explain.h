#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "dhp/planner.h"

namespace dhp {

/// An idle period of a rank, before one of its tasks or after its last one.
struct Wait {
  Rank rank = 0;
  double seconds = 0.0;
  double from_s = 0.0;
  int task = -1;      ///< the task waited for; -1: the end of the step
  std::string cause;  ///< "waits for rank 3, busy with task 7"
  bool operator==(const Wait&) const = default;
};

/// What limits a plan, and where its ranks wait.
struct Explanation {
  double makespan_s = 0.0;
  double lower_bound_s = 0.0;  ///< the tighter one; 0 for a plan that uses all_to_all
  double gap = 0.0;
  double idle_share = 0.0;
  /// What bounds the batch: "total work of 512 sequences" or "sequence 17 (131072 tokens)"; prefixed with
  /// "transfers of" or "memory of" if removing that cost would lower the bound by 5 %.
  std::string limited_by;
  std::vector<std::pair<int, int>> degrees;  ///< (degree, tasks), ascending
  std::vector<Wait> longest_waits;           ///< at most three, longest first
  bool operator==(const Explanation&) const = default;
};

/// Here and below, the plan must be valid (check_plan); figures of an invalid plan mean nothing. Each function throws
/// InputError for a plan that cannot be walked (require_shape), and for a batch, a cost or options out of range
/// (validate).
Explanation explain_plan(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost);

/// Why a task has its degree and its start. Derived from the plan, not reported by its planner: what would have
/// happened at the next narrower degree that the options allow, and which option forbids a wider one.
struct TaskReason {
  int task = 0;
  std::int64_t tokens = 0;
  double start_s = 0.0;
  double seconds = 0.0;
  std::string degree;  ///< "memory: 3 ranks are the fewest that hold it"
  std::string start;   ///< "starts when rank 3 is done with task 4"
  bool operator==(const TaskReason&) const = default;
};

/// One reason per task, in plan order. `options` are those that the plan was made with; the plan itself names its
/// planner.
std::vector<TaskReason> explain_tasks(const Plan& plan, const Batch& batch, const Cluster& cluster,
                                      const CostModel& cost, const PlanOptions& options = {});

/// What the step would take after one change.
struct Change {
  std::string what;         ///< "one node more"
  double from_s = 0.0;      ///< the unchanged step, by the same method; 0 if it has no answer
  double makespan_s = 0.0;  ///< 0 if there is no answer
  std::string no_answer;    ///< why
  bool operator==(const Change&) const = default;
};

struct WhatIf {
  std::string method;  ///< "planned again by free", or "lower bounds" if the plan names no known planner
  /// Without any change: the plan's makespan, unless it breaks the options or planning again does better; 0 if there is
  /// no answer.
  double from_s = 0.0;
  std::string no_answer = {};  ///< why
  std::vector<Change> changes = {};
  bool operator==(const WhatIf&) const = default;
};

/// What one change would gain: more ranks, more memory, faster links, no barriers. Plans again with `options`, but with
/// the planner that the plan names. Where the plans of the unchanged cluster would be faster, these are kept, so that
/// no improvement looks like a loss. Takes about as long as planning six times.
WhatIf explain_changes(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost,
                       const PlanOptions& options = {});

}  // namespace dhp
