#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "dhp/batch.h"
#include "dhp/cost_model.h"
#include "plan/limits.h"

namespace dhp::plan {

/// A sequence with what packing asks of it.
struct Item {
  Sequence sequence;
  double memory_bytes = 0.0;  ///< its activations, on however many ranks
  int min_degree = 1;         ///< by memory and the cap on tokens, allowed
  int max_degree = 1;         ///< by the shortest shard allowed; at least min_degree
  std::int32_t position = 0;  ///< in the batch
};

/// One item a sequence, by falling memory, ties by id. The batch must be feasible (Limits::find_infeasible).
std::vector<Item> make_items(const Batch& batch, const Limits& limits);

/// Sequences that share a group.
struct Bin {
  Load load;
  int min_degree = 1;  ///< also its capacity: min_degree x budget
  int max_degree = 1;  ///< the least of its members'
};

struct Packing {
  /// Capacity left and bin, ascending: of the bins of one min_degree, so that those too wide for an item cost nothing.
  struct Slacks {
    int min_degree = 1;
    std::set<std::pair<double, std::int32_t>> bytes;
  };
  std::vector<Bin> bins;             ///< in the order they were opened
  std::vector<std::int32_t> bin_of;  ///< of each chosen item, in the order of `chosen`
  std::vector<Slacks> slacks;        ///< of each min_degree that a bin has
};

/// Memory-aware best-fit decreasing of the items whose indices are `chosen`, ascending (so by falling memory). An item
/// joins the bin with the least slack that holds it (the older among equals) and whose degree it may be cut to; else it
/// opens a bin of its min_degree. False as soon as the bins' degrees exceed `ranks`; `packing`, whose storage is used
/// again, is then unfinished.
bool best_fit_decreasing(std::span<const Item> items, std::span<const std::int32_t> chosen, const Limits& limits,
                         int ranks, Packing& packing);

}  // namespace dhp::plan
