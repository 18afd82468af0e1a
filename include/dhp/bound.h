#pragma once

#include <cstddef>
#include <optional>

#include "dhp/batch.h"
#include "dhp/cluster.h"
#include "dhp/cost_model.h"

namespace dhp {

/// Seconds that no plan beats, and why.
struct LowerBound {
  double seconds = 0.0;
  /// Position in the batch of a sequence that takes that long alone, on the ranks that suit it best; empty if the total
  /// work sets the bound.
  std::optional<std::size_t> sequence = {};
};

/// The tighter of the two bounds that docs/bounds.md proves. It takes into account transfers that attention does not
/// hide, the cost of splitting, and which sequences memory keeps apart. It is never below simple_lower_bound_s() and,
/// like it, a pure function. It takes some 0.4 milliseconds for 512 sequences on 64 ranks, 5 for 8,192 on 1,024, 270
/// for 524,288 on 65,536. Returns 0 for an empty batch. Meaningful only for a batch that can be planned; not valid for
/// Exchange::all_to_all.
LowerBound tighter_lower_bound(const Batch& batch, const Cluster& cluster, const CostModel& cost);

inline double tighter_lower_bound_s(const Batch& batch, const Cluster& cluster, const CostModel& cost) {
  return tighter_lower_bound(batch, cluster, cost).seconds;
}

}  // namespace dhp
