#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "dhp/planner.h"
#include "plan/limits.h"

namespace dhp {

// The planners behind plan_batch(). The batch is valid and not empty, the options are checked, and every sequence fits
// some degree that the limits allow (Limits::find_infeasible). Plans come without annotation and number of ranks:
// plan_batch() adds them. `argument` is the number after the colon of the planner's name.

/// What plan_batch() gives but for times, bound and hash: for those who ask only how long it takes.
PlanResult plan_without_times(const Batch& batch, const Cluster& cluster, const CostModel& cost,
                              const PlanOptions& options);

/// Barrier-free schedule of the whole batch; free.cpp.
PlanResult plan_free(const Batch& batch, const Limits& limits, const PlanOptions& options, std::optional<int> argument);

/// Micro-batches, packing and degrees by time, in lockstep; lockstep.cpp.
PlanResult plan_lockstep(const Batch& batch, const Limits& limits, const PlanOptions& options,
                         std::optional<int> argument);

/// Memory-aware best-fit decreasing bins, exact degrees, lockstep. Ref: Niu et al., arXiv 2602.21788.
PlanResult plan_paper(const Batch& batch, const Limits& limits, const PlanOptions& options,
                      std::optional<int> argument);

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

/// Megatron-Core's BalancedCPScheduler (main).
PlanResult plan_megatron_hybrid(const Batch& batch, const Limits& limits, const PlanOptions& options,
                                std::optional<int> argument);

/// Megatron-Core's DefaultDynamicCPScheduler (dev).
PlanResult plan_megatron_dynamic(const Batch& batch, const Limits& limits, const PlanOptions& options,
                                 std::optional<int> argument);

/// Why no plan of a planner holds a sequence that the limits hold, whatever else is in the batch; nothing if one may.
/// An answer without `sequence` holds for every sequence.
using SequenceCheck = std::function<std::optional<Infeasible>(const Sequence& sequence)>;

/// Of static and balanced-static, ulysses, and both of Megatron-Core. The limits must outlive them.
SequenceCheck check_for_static(const Limits& limits, const PlanOptions& options, std::optional<int> argument);
SequenceCheck check_for_ulysses(const Limits& limits, const PlanOptions& options, std::optional<int> argument);
SequenceCheck check_for_megatron(const Limits& limits, const PlanOptions& options, std::optional<int> argument);

/// Planners that alone use the option of that name, with commas between them; empty where all use it.
std::string own_users(const std::string& option);

/// All divisors of a positive number, ascending.
std::vector<int> divisors(int number);

}  // namespace dhp
