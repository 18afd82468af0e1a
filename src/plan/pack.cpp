#include "plan/pack.h"

#include <algorithm>
#include <tuple>

namespace dhp {
namespace {

/// Whether the bin still fits its own ranks with the item in it; the same arithmetic that checks plans.
bool holds(const Bin& bin, const Item& item, const Limits& limits) {
  Load load = bin.load;
  load.add(item.sequence);
  return limits.fits(load, bin.min_degree);
}

using Slack = std::pair<double, std::int32_t>;

/// The entry of the bin that the item joins; the end for a new one.
std::vector<Slack>::iterator tightest(Packing& packing, const Item& item, const Limits& limits) {
  // Slack is a rounded difference: let it pass bins that are full to the last bit, `holds` decides.
  constexpr double kRounding = 1e-9;
  const double least = item.memory_bytes * (1.0 - kRounding) - kRounding * limits.budget_bytes();
  auto& slacks = packing.by_slack_bytes;
  const auto first = std::lower_bound(slacks.begin(), slacks.end(), least,
                                      [](const Slack& slack, double bytes) { return slack.first < bytes; });
  return std::find_if(first, slacks.end(), [&](const Slack& slack) {
    const Bin& bin = packing.bins[static_cast<std::size_t>(slack.second)];
    return item.max_degree >= bin.min_degree && holds(bin, item, limits);
  });
}

/// Lowers an entry and moves it to its new place.
void lower_slack(std::vector<Slack>& slacks, std::vector<Slack>::iterator entry, double bytes) {
  const Slack lowered(entry->first - bytes, entry->second);
  const auto place = std::lower_bound(slacks.begin(), entry, lowered);
  std::move_backward(place, entry, entry + 1);
  *place = lowered;
}

}  // namespace

std::vector<Item> make_items(const Batch& batch, const Limits& limits) {
  std::vector<Item> items;
  items.reserve(batch.sequences.size());
  for (const Sequence& sequence : batch.sequences) {
    Item item;
    item.sequence = sequence;
    item.memory_bytes = task_memory_bytes(limits.cost(), load_of(std::span(&sequence, 1)), 1);
    item.min_degree = limits.min_degree(sequence);
    item.max_degree = limits.max_degree(sequence, item.min_degree);
    item.place = static_cast<std::int32_t>(items.size());
    items.push_back(item);
  }
  std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
    return std::tuple(-a.memory_bytes, a.sequence.id) < std::tuple(-b.memory_bytes, b.sequence.id);
  });
  return items;
}

bool best_fit_decreasing(std::span<const Item> items, std::span<const std::int32_t> chosen, const Limits& limits,
                         int ranks, Packing& packing) {
  std::vector<Bin>& bins = packing.bins;
  bins.clear();
  packing.bin_of.clear();
  packing.by_slack_bytes.clear();
  int left = ranks;
  for (const std::int32_t index : chosen) {
    const Item& item = items[static_cast<std::size_t>(index)];
    auto entry = tightest(packing, item, limits);
    if (entry == packing.by_slack_bytes.end()) {
      left -= item.min_degree;
      if (left < 0) return false;
      const Slack whole(item.min_degree * limits.budget_bytes(), static_cast<std::int32_t>(bins.size()));
      entry = packing.by_slack_bytes.insert(
          std::upper_bound(packing.by_slack_bytes.begin(), packing.by_slack_bytes.end(), whole), whole);
      bins.push_back({{}, item.min_degree, item.max_degree});
    }
    const std::int32_t bin = entry->second;
    Bin& joined = bins[static_cast<std::size_t>(bin)];
    joined.load.add(item.sequence);
    joined.max_degree = std::min(joined.max_degree, item.max_degree);
    packing.bin_of.push_back(bin);
    lower_slack(packing.by_slack_bytes, entry, item.memory_bytes);
  }
  return true;
}

}  // namespace dhp
