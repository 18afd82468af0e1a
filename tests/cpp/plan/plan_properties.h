#pragma once

#include <optional>
#include <string>

#include "random_case.h"

namespace dhp::test {

/// A property that a case breaks.
struct Broken {
  std::string property;  ///< "keeps placement"
  std::string detail;
};

// What planners promise. Names of properties:
//
//     answers          a plan or Infeasible; throws nothing
//     infeasible       exactly where some sequence has no degree
//     valid            by check_plan()
//     keeps OPTION     by option_rules.h: "keeps max_degree"
//     keeps options    by check_options(), of planners that do not look at all of them
//     checkers agree   check_options() finds fault exactly where option_rules.h does
//     bounds           no makespan below the simple or the tighter lower bound
//     survives files   to_json() and parse_plan() give the plan back
//     same bytes       when planned again
//     order, memory, traffic, ids, time
//                      tasks do not depend on the order of the batch, on the units of bytes held and bytes sent, on ids
//                      but for their order, and on the unit of time
//     beats static     where static's plan keeps the options and nothing else is asked for (free)

/// The first property that the planner that the options name breaks in this case. Order,
/// units and static are for free and lockstep only; so is the exact set of infeasible batches, but for paper.
std::optional<Broken> first_broken(const Case& made);

}  // namespace dhp::test
