#pragma once

#include <optional>
#include <string>
#include <vector>

#include "random_case.h"

namespace dhp::test {

// What options mean, written down once more: from the comments of PlanOptions, one plain rule after the other, with
// nothing of src/plan.

/// The smallest degree that memory, caps and options allow the sequence; nothing if there is none.
std::optional<int> least_degree(const Case& made, const Sequence& sequence);

/// A sequence that no degree is allowed for (or "no rank"); nothing if the case must have a plan.
std::optional<std::string> why_infeasible(const Case& made);

struct BrokenOption {
  std::string option;  ///< the field; "rank_speed" for tasks on ranks that are out of service
  std::string detail;
};
/// Everything in which the plan breaks the options.
std::vector<BrokenOption> broken_options(const Plan& plan, const Case& made);

}  // namespace dhp::test
