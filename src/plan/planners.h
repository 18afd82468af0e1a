#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "dhp/planner.h"
#include "plan/limits.h"

namespace dhp::plan {

// The planners behind plan_batch(). The batch is valid and not empty, the options are checked, and every sequence fits
// some degree that the limits allow (Limits::find_infeasible). Plans come without annotation and number of ranks:
// plan_batch() adds them. `argument` is the number after the colon of the planner's name.

/// What plan_batch() gives but for times, bound and hash: for those who ask only how long it takes.
PlanResult plan_without_times(const Batch& batch, const Cluster& cluster, const CostModel& cost,
                              const PlanOptions& options);

/// The whole batch as one plan without barriers; free.cpp.
PlanResult plan_free(const Batch& batch, const Limits& limits, const PlanOptions& options, std::optional<int> argument);

/// Micro-batches, packing and degrees by time, in lockstep; lockstep.cpp.
PlanResult plan_lockstep(const Batch& batch, const Limits& limits, const PlanOptions& options,
                         std::optional<int> argument);

/// The same for the least makespan, whatever errors are expected.
PlanResult plan_lockstep_shortest(const Batch& batch, const Limits& limits, const PlanOptions& options);

/// One context-parallel degree for all, as frameworks run; without `argument` the best divisor of the ranks.
PlanResult plan_static(const Batch& batch, const Limits& limits, const PlanOptions& options,
                       std::optional<int> argument);

/// The best static plan that keeps min_shard_tokens and takes less than `limit_s`, if there is one; quick where not.
std::optional<Plan> static_plan_below(const Batch& batch, const Limits& limits, const PlanOptions& options,
                                      double limit_s);

/// The same mesh as production runs it at best: packs balanced over the groups by predicted time.
PlanResult plan_balanced_static(const Batch& batch, const Limits& limits, const PlanOptions& options,
                                std::optional<int> argument);

/// The static mesh with heads split instead of sequences, as DeepSpeed-Ulysses. Ref: Jacobs et al., arXiv 2309.14509.
/// Throws InputError for a cost model that lacks heads or bytes of all_to_all.
PlanResult plan_ulysses(const Batch& batch, const Limits& limits, const PlanOptions& options,
                        std::optional<int> argument);

/// Why no plan of a planner holds a sequence that the limits hold, whatever else is in the batch; nothing if one may.
/// An answer without `sequence` holds for every sequence.
using SequenceCheck = std::function<std::optional<Infeasible>(const Sequence& sequence)>;

/// Of static and balanced-static, and of ulysses. The limits must outlive them.
SequenceCheck check_for_static(const Limits& limits, const PlanOptions& options, std::optional<int> argument);
SequenceCheck check_for_ulysses(const Limits& limits, const PlanOptions& options, std::optional<int> argument);

using PlanFunction = PlanResult (*)(const Batch& batch, const Limits& limits, const PlanOptions& options,
                                    std::optional<int> argument);

using CheckFunction = SequenceCheck (*)(const Limits& limits, const PlanOptions& options, std::optional<int> argument);

/// What the number after the colon of a name may be.
enum class Argument { none, number, divides_ranks };

/// A planner as plan_batch() finds it by its name.
struct Planner {
  const char* name;
  Argument argument;  ///< may be left out
  const char* argument_name;
  Schedule schedule;
  std::vector<Exchange> exchanges;            ///< where the options name none
  std::vector<std::string_view> own_options;  ///< used beyond what all planners use
  PlanFunction plan;
  CheckFunction check;  ///< of sequences alone, beyond what the limits say; null: they say all
  const char* help;
  const char* argument_help;
  bool sees_shared_links = false;  ///< plans for NICs and switches that ranks share; others as their sources do
};

/// The planners known so far, in the order of the help text.
const std::vector<Planner>& planner_table();

/// Makes more planners known, as add_peers() does. Not while others plan.
void add_planners(const std::vector<Planner>& more);

/// The planner that `text` names ("free", "static:4"). Throws InputError where there is none.
const Planner& find_planner(const std::string& text);

/// The number after the colon, if there is one. Throws InputError for one that the planner does not take.
std::optional<int> parse_argument(const Planner& planner, const std::string& text, int ranks);

/// Whether it uses an option that others do not.
bool has_own(const Planner& planner, std::string_view option);

/// Planners that alone use the option of that name, with commas between them; empty where all use it.
std::string own_users(const std::string& option);

/// All divisors of a positive number, ascending.
std::vector<int> divisors(int number);

}  // namespace dhp::plan
