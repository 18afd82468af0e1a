#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "dhp/batch.h"
#include "dhp/cost_model.h"

namespace dhp {

/// A sequence with what packing asks of it.
struct Item {
  Sequence sequence;
  double memory_bytes = 0.0;  ///< its activations, on however many ranks
  int min_degree = 1;         ///< by memory
  int max_degree = 1;         ///< by the shortest shard allowed; at least min_degree
};

/// One item a sequence, in batch order. A shard has at least `min_shard_tokens` tokens unless memory asks for more
/// ranks; no degree exceeds the cluster. The batch must be feasible (feasible.h).
std::vector<Item> make_items(const Batch& batch, const Cluster& cluster, const CostModel& cost, int min_shard_tokens);

/// Sequences that share a group.
struct Bin {
  Load load;
  int min_degree = 1;                 ///< also its capacity: min_degree x budget
  int max_degree = 1;                 ///< the least of its members'
  double slack_bytes = 0.0;           ///< capacity left
  std::vector<std::int32_t> members;  ///< item indices in packing order; the first opened the bin
};

/// Memory-aware best-fit decreasing. `order` lists items by falling memory. An item joins the bin with the least slack
/// that holds it (the older among equals) and whose degree it may be cut to; else it opens a bin of its min_degree.
/// Empty as soon as the bins' degrees exceed `ranks`.
std::optional<std::vector<Bin>> best_fit_decreasing(std::span<const Item> items, std::span<const std::int32_t> order,
                                                    const CostModel& cost, double budget_bytes, int ranks);

}  // namespace dhp
