#include "plan/peers/pack.h"

#include <algorithm>
#include <tuple>

#include "base/index.h"

namespace dhp::plan {
namespace {

/// Whether the bin still fits its own ranks with the item in it; the same arithmetic that checks plans.
bool holds(const Bin& bin, const Item& item, const Limits& limits) {
  Load load = bin.load;
  load.add(item.sequence);
  return limits.fits(load, bin.min_degree);
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

/// What a bin has left at least that holds the item. Slack is a rounded difference: this lets pass bins that are full
/// to the last bit, `holds` decides.
double BestFit::least_slack(const Item& item) const {
  constexpr double kRounding = 1e-9;
  return item.memory_bytes * (1.0 - kRounding) - kRounding * limits_.budget_bytes();
}

BestFit::Tightest BestFit::tightest(const Item& item, const std::vector<Bin>& bins) {
  const double least = least_slack(item);
  Tightest best;
  for (Group& group : groups_) {
    const Slacks& slacks = group.slacks;
    if (item.max_degree < group.min_degree || slacks.empty() || slacks.largest().first < least) continue;
    Slacks::Place place = slacks.at_least(least);
    const auto better = [&] {
      return !slacks.is_end(place) && (best.slacks == nullptr || slacks[place] < (*best.slacks)[best.place]);
    };
    while (better() && !holds(bins[index(slacks[place].second)], item, limits_)) place = slacks.next(place);
    if (better()) best = {&group.slacks, place};
  }
  return best;
}

Slacks& BestFit::slacks_of(int min_degree) {
  const auto same = [&](const Group& group) { return group.min_degree == min_degree; };
  auto group = std::find_if(groups_.begin(), groups_.end(), same);
  if (group == groups_.end()) group = groups_.insert(group, {min_degree, {}});
  return group->slacks;
}

std::size_t BestFit::pack(std::span<const std::int32_t> chosen, int ranks, Packing& packing) {
  std::vector<Bin>& bins = packing.bins;
  bins.clear();
  packing.bin_of.clear();
  for (Group& group : groups_) group.slacks.clear();
  const double useless = chosen.empty() ? 0.0 : least_slack(items_[index(chosen.back())]);  // to any item: less
  int left = ranks;
  for (const std::int32_t number : chosen) {
    const Item& item = items_[index(number)];
    const Tightest found = tightest(item, bins);
    Slacks* slacks = found.slacks;
    Slack slack;
    if (slacks != nullptr) {
      slack = (*slacks)[found.place];
      slacks->remove(found.place);
    } else {
      left -= item.min_degree;
      if (left < 0) break;
      slacks = &slacks_of(item.min_degree);
      slack = {item.min_degree * limits_.budget_bytes(), static_cast<std::int32_t>(bins.size())};
      bins.push_back({{}, item.min_degree, item.max_degree});
    }
    Bin& joined = bins[index(slack.second)];
    joined.load.add(item.sequence);
    joined.max_degree = std::min(joined.max_degree, item.max_degree);
    packing.bin_of.push_back(slack.second);
    slack.first -= item.memory_bytes;
    if (slack.first >= useless) slacks->insert(slack);
  }
  return packing.bin_of.size();
}

}  // namespace dhp::plan
