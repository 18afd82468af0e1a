#pragma once

#include <span>
#include <vector>

#include "plan/lockstep_fill.h"

namespace dhp {

/// Ways to end a plan. One group of all ranks, where that holds all that is left. And when all that is left can run on
/// single ranks: the fewest micro-batches that memory allows, and one and two more. All items are dealt to all ranks of
/// all of them at once and levelled, then sorted by time into micro-batches.
std::vector<MicroBatches> finishes(const FreeCell& cell, std::span<const FreeItem> items, LeftItems& left,
                                   MicroBatchFiller& filler);

}  // namespace dhp
