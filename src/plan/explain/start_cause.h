#pragma once

#include <vector>

#include "dhp/plan.h"

namespace dhp::plan {

/// Why a task starts when it does.
struct StartCause {
  enum class Kind {
    step,     ///< it starts with the step
    rank,     ///< `rank` was busy with `task` until then
    barrier,  ///< micro-batches before it ended then, with `task`
  };
  Kind kind = Kind::step;
  Rank rank = 0;
  int task = -1;
};

/// One a task, in plan order. The timeline must be the plan's.
std::vector<StartCause> start_causes(const Plan& plan, const Timeline& timeline);

/// The first of the tasks that end last; -1 for an empty plan.
int last_task(const Timeline& timeline);

}  // namespace dhp::plan
