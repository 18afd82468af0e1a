#pragma once

#include <span>
#include <vector>

#include "base/number_limits.h"
#include "plan/lockstep/fill.h"

namespace dhp::plan {

/// How long a micro-batch may take, where that can be.
struct Ceiling {
  double seconds = kInfinity;
  bool dealt = false;  ///< all that was left has been dealt once, which is enough: micro-batches are many and alike
};

/// Ways to end a plan. One group of all ranks, where that holds all that is left. And when all that is left can run on
/// single ranks: the fewest micro-batches that memory allows, and one and two more; under a ceiling, as many as may all
/// end by it. All items are dealt to all ranks of all of them at once and levelled, then sorted by time into
/// micro-batches.
std::vector<MicroBatches> finishes(const FreeCell& cell, std::span<const SearchItem> items, LeftItems& left,
                                   MicroBatchFiller& filler, Ceiling& ceiling);

}  // namespace dhp::plan
