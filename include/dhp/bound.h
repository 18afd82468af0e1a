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
  /// Position in the batch of a sequence that takes as long alone, on the ranks that suit it best; nothing where it is
  /// the work of all of them together.
  std::optional<std::size_t> sequence = {};
};

/// The tighter of the bounds of docs/bounds.md, where its proof stands: it knows what transfers cost that attention
/// does not hide, what splitting costs, and which sequences memory keeps apart. Never below simple_lower_bound_s(), and
/// a pure function as that is. Some 0.4 milliseconds for 512 sequences on 64 ranks, 5 for 8,192 on 1,024, 270 for
/// 524,288 on 65,536. 0 for an empty batch. Meaningful only for a batch that can be planned; not valid for
/// Exchange::all_to_all.
LowerBound tighter_lower_bound(const Batch& batch, const Cluster& cluster, const CostModel& cost);

inline double tighter_lower_bound_s(const Batch& batch, const Cluster& cluster, const CostModel& cost) {
  return tighter_lower_bound(batch, cluster, cost).seconds;
}

}  // namespace dhp
