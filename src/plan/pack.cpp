#include "plan/pack.h"

#include <algorithm>
#include <limits>

namespace dhp {
namespace {

/// Whether the bin still fits its own ranks with the item in it; the same arithmetic that checks plans.
bool holds(const Bin& bin, const Item& item, const CostModel& cost, double budget_bytes) {
  Load load = bin.load;
  load.add(item.sequence);
  return task_memory_bytes(cost, load, bin.min_degree) <= budget_bytes;
}

Bin open_bin(const Item& item, std::int32_t index, double budget_bytes) {
  Bin bin;
  bin.load.add(item.sequence);
  bin.min_degree = item.min_degree;
  bin.max_degree = item.max_degree;
  bin.slack_bytes = item.min_degree * budget_bytes - item.memory_bytes;
  bin.members.push_back(index);
  return bin;
}

}  // namespace

std::vector<Item> make_items(const Batch& batch, const Cluster& cluster, const CostModel& cost, int min_shard_tokens) {
  std::vector<Item> items;
  items.reserve(batch.sequences.size());
  for (const Sequence& sequence : batch.sequences) {
    Item item;
    item.sequence = sequence;
    item.memory_bytes = task_memory_bytes(cost, load_of(std::span(&sequence, 1)), 1);
    item.min_degree = min_degree(cost, cluster, sequence);
    const std::int64_t widest = std::min<std::int64_t>(sequence.tokens / min_shard_tokens, cluster.ranks());
    item.max_degree = std::max(item.min_degree, static_cast<int>(widest));
    items.push_back(item);
  }
  return items;
}

std::optional<std::vector<Bin>> best_fit_decreasing(std::span<const Item> items, std::span<const std::int32_t> order,
                                                    const CostModel& cost, double budget_bytes, int ranks) {
  // Slack is a rounded difference: let it pass bins that are full to the last bit, `holds` decides.
  constexpr double kRounding = 1e-9;
  std::vector<Bin> bins;
  int left = ranks;
  for (const std::int32_t index : order) {
    const Item& item = items[static_cast<std::size_t>(index)];
    const double least_slack = item.memory_bytes * (1.0 - kRounding) - kRounding * budget_bytes;
    Bin* tightest = nullptr;
    double tightest_slack = std::numeric_limits<double>::infinity();
    for (Bin& bin : bins) {
      if (bin.slack_bytes >= tightest_slack || bin.slack_bytes < least_slack) continue;
      if (item.max_degree < bin.min_degree || !holds(bin, item, cost, budget_bytes)) continue;
      tightest = &bin;
      tightest_slack = bin.slack_bytes;
    }
    if (tightest == nullptr) {
      left -= item.min_degree;
      if (left < 0) return std::nullopt;
      bins.push_back(open_bin(item, index, budget_bytes));
      continue;
    }
    tightest->load.add(item.sequence);
    tightest->slack_bytes -= item.memory_bytes;
    tightest->max_degree = std::min(tightest->max_degree, item.max_degree);
    tightest->members.push_back(index);
  }
  return bins;
}

}  // namespace dhp
