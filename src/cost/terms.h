#pragma once

#include "dhp/cost_model.h"

namespace dhp {

// What the bounds charge a sequence for, whatever group it runs in.

inline double sequence_bytes(const CostModel& cost, const Sequence& sequence) {
  return static_cast<double>(sequence.tokens) * cost.token_bytes +
         static_cast<double>(sequence.patches) * cost.patch_bytes;
}

/// Fixed seconds of one attention step of both passes: per task, and per sequence.
inline double step_s(const CostModel& cost) { return cost.forward.step_s + cost.backward.step_s; }
inline double sequence_step_s(const CostModel& cost) {
  return cost.forward.sequence_step_s + cost.backward.sequence_step_s;
}

/// Rank-seconds of a sequence at nominal speed, fixed costs apart.
inline double work_s(const CostModel& cost, const Sequence& sequence) {
  const auto tokens = static_cast<double>(sequence.tokens);
  return (cost.forward.token_s + cost.backward.token_s) * tokens +
         (cost.forward.pair_s + cost.backward.pair_s) * tokens * tokens / 2 +
         cost.patch_s * static_cast<double>(sequence.patches);
}

/// A sum that rounding has pushed past a whole number must not ask for one rank more than is true.
inline constexpr double kNeedRounding = 1e-10;  // relative

}  // namespace dhp
