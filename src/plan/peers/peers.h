#pragma once

#include "plan/planners.h"

namespace dhp::plan {

// What others plan with, to compare with; add_peers() makes them known. Contracts: plan/planners.h.

/// Memory-aware best-fit decreasing bins, exact degrees, lockstep. Ref: Niu et al., arXiv 2602.21788.
PlanResult plan_paper(const Batch& batch, const Limits& limits, const PlanOptions& options,
                      std::optional<int> argument);

/// Megatron-Core's BalancedCPScheduler (main).
PlanResult plan_megatron_hybrid(const Batch& batch, const Limits& limits, const PlanOptions& options,
                                std::optional<int> argument);

/// Megatron-Core's DefaultDynamicCPScheduler (dev).
PlanResult plan_megatron_dynamic(const Batch& batch, const Limits& limits, const PlanOptions& options,
                                 std::optional<int> argument);

/// Of both of Megatron-Core. The limits must outlive it.
SequenceCheck check_for_megatron(const Limits& limits, const PlanOptions& options, std::optional<int> argument);

}  // namespace dhp::plan
