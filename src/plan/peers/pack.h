#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "dhp/batch.h"
#include "dhp/cost_model.h"
#include "plan/limits.h"
#include "plan/peers/slacks.h"

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
  std::vector<Bin> bins;             ///< in the order they were opened
  std::vector<std::int32_t> bin_of;  ///< of each item, in the order of `chosen`
};

/// Memory-aware best-fit decreasing, with its storage, which is used again. Items and limits must outlive it.
class BestFit {
 public:
  /// Items of make_items().
  BestFit(std::span<const Item> items, const Limits& limits) : items_(items), limits_(limits) {}

  /// Packs the items whose indices are `chosen`, ascending (so by falling memory). An item joins the bin with the least
  /// slack that holds it (the older among equals) and whose degree it may be cut to; else it opens a bin of its
  /// min_degree. Ends before the item with which the bins' degrees would exceed `ranks`. Returns how many it packed.
  std::size_t pack(std::span<const std::int32_t> chosen, int ranks, Packing& packing);

 private:
  /// Of the bins of one min_degree, so that those too wide for an item cost nothing.
  struct Group {
    int min_degree = 1;
    Slacks slacks;
  };
  /// Where the slack of the bin stands that an item joins.
  struct Tightest {
    Slacks* slacks = nullptr;  ///< null: it joins none
    Slacks::Place place = {};
  };

  double least_slack(const Item& item) const;
  Tightest tightest(const Item& item, const std::vector<Bin>& bins);
  Slacks& slacks_of(int min_degree);

  std::span<const Item> items_;
  const Limits& limits_;
  std::vector<Group> groups_;  // of each min_degree that a bin ever had
};

}  // namespace dhp::plan
