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
struct Work {
  double all_s = 0.0;
  VisionSeconds vision = {};  ///< the part of it that is not split finer than frames

  /// Seconds of `degree` ranks.
  double on(double degree) const {
    const double even = all_s / degree;
    const double frame = vision.frame_s - vision.work_s / degree;
    return frame > 0.0 ? even + frame : even;
  }
};
inline Work work_of(const CostModel& cost, const Sequence& sequence) {
  const auto tokens = static_cast<double>(sequence.tokens);
  const auto patches = static_cast<double>(sequence.patches);
  const auto frame = static_cast<double>(sequence.frame_patches);
  const VisionSeconds vision = {.work_s = (cost.patch_s + cost.patch_pair_s * frame) * patches,
                                .frame_s = (cost.patch_s + cost.patch_pair_s * frame) * frame};
  return {.all_s = (cost.forward.token_s + cost.backward.token_s) * tokens +
                   (cost.forward.pair_s + cost.backward.pair_s) * tokens * tokens / 2 + vision.work_s,
          .vision = vision};
}

/// Joins the largest frames of two loads: their size, in patches or seconds, and how many are so large.
inline void join_largest(double& size, double& count, double other_size, double other_count) {
  if (other_size < size) return;
  if (other_size > size) count = 0.0;
  size = other_size;
  count += other_count;
}

/// A sum that rounding has pushed past a whole number must not ask for one rank more than is true.
inline constexpr double kNeedRounding = 1e-10;  // relative

}  // namespace dhp
