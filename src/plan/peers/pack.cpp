#include "plan/peers/pack.h"

#include <algorithm>
#include <limits>
#include <tuple>
#include <utility>

namespace dhp::plan {
namespace {

/// Whether the bin still fits its own ranks with the item in it; the same arithmetic that checks plans.
bool holds(const Bin& bin, const Item& item, const Limits& limits) {
  Load load = bin.load;
  load.add(item.sequence);
  return limits.fits(load, bin.min_degree);
}

using Slack = std::pair<double, std::int32_t>;

/// Where the slack of the bin stands that the item joins.
struct PackingEntry {
  std::set<Slack>* slacks = nullptr;  ///< null: it joins none
  std::set<Slack>::iterator slack = {};
};

PackingEntry tightest(Packing& packing, const Item& item, const Limits& limits) {
  // Slack is a rounded difference: let it pass bins that are full to the last bit, `holds` decides.
  constexpr double kRounding = 1e-9;
  const double least = item.memory_bytes * (1.0 - kRounding) - kRounding * limits.budget_bytes();
  PackingEntry best;
  for (Packing::Slacks& group : packing.slacks) {
    std::set<Slack>& slacks = group.bytes;
    if (item.max_degree < group.min_degree || slacks.empty() || slacks.rbegin()->first < least) continue;
    auto slack = slacks.lower_bound({least, std::numeric_limits<std::int32_t>::min()});
    const auto better = [&] { return slack != slacks.end() && (best.slacks == nullptr || *slack < *best.slack); };
    while (better() && !holds(packing.bins[static_cast<std::size_t>(slack->second)], item, limits)) ++slack;
    if (better()) best = {&slacks, slack};
  }
  return best;
}

/// Opens a bin for the item.
PackingEntry open_bin(Packing& packing, const Item& item, const Limits& limits) {
  const auto same = [&](const Packing::Slacks& one) { return one.min_degree == item.min_degree; };
  auto group = std::find_if(packing.slacks.begin(), packing.slacks.end(), same);
  if (group == packing.slacks.end()) group = packing.slacks.insert(group, {item.min_degree, {}});
  const Slack whole(item.min_degree * limits.budget_bytes(), static_cast<std::int32_t>(packing.bins.size()));
  packing.bins.push_back({{}, item.min_degree, item.max_degree});
  return {&group->bytes, group->bytes.insert(whole).first};
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
    item.position = static_cast<std::int32_t>(items.size());
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
  packing.slacks.clear();
  int left = ranks;
  for (const std::int32_t index : chosen) {
    const Item& item = items[static_cast<std::size_t>(index)];
    PackingEntry entry = tightest(packing, item, limits);
    if (entry.slacks == nullptr) {
      left -= item.min_degree;
      if (left < 0) return false;
      entry = open_bin(packing, item, limits);
    }
    auto slack = entry.slacks->extract(entry.slack);
    Bin& joined = bins[static_cast<std::size_t>(slack.value().second)];
    joined.load.add(item.sequence);
    joined.max_degree = std::min(joined.max_degree, item.max_degree);
    packing.bin_of.push_back(slack.value().second);
    slack.value().first -= item.memory_bytes;
    entry.slacks->insert(std::move(slack));
  }
  return true;
}

}  // namespace dhp::plan
