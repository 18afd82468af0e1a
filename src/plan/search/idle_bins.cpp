#include "plan/search/idle_bins.h"
#include "base/number_limits.h"

#include <algorithm>
#include <limits>

namespace dhp::plan {
namespace {

constexpr std::size_t kMostSpeeds = 16;  // each has its own sets to look through; more share kKinds
constexpr std::size_t kKinds = 32;       // of equal width, from the least speed to the greatest
constexpr std::size_t kLevels = 512;     // of the room that is left in a bin; a power of two, for the tree over them
constexpr std::pair<double, int> kNone{kInfinity, -1};

std::vector<double> distinct(std::vector<double> speeds) {
  std::sort(speeds.begin(), speeds.end());
  speeds.erase(std::unique(speeds.begin(), speeds.end()), speeds.end());
  return speeds;
}

}  // namespace

IdleBins::IdleBins(const SearchModel& model, const Lanes& bins, std::span<const double> end_s, bool one_pack)
    : model_(model), one_pack_(one_pack) {
  const std::vector<double> speeds = distinct(bins.speed);
  const bool are_few = speeds.size() <= kMostSpeeds;
  const auto kind_of = [&](double speed) {
    if (are_few) return index(std::lower_bound(speeds.begin(), speeds.end(), speed) - speeds.begin());
    const double share = (speed - speeds.front()) / (speeds.back() - speeds.front());
    return std::min(kKinds - 1, static_cast<std::size_t>(share * kKinds));
  };
  kinds_.resize(are_few ? speeds.size() : kKinds);
  for (Kind& kind : kinds_) {
    if (!one_pack) continue;
    kind.by_room.resize(kLevels);
    kind.first.assign(2 * kLevels, kNone);
  }
  for (int bin = 0; bin < bins.count(); ++bin) {
    const double speed = bins.speed[index(bin)];
    bins_.push_back({kind_of(speed), speed, end_s[index(bin)]});
    insert(bin);
  }
}

/// The share of a bin that they take: of its tokens where those have a cap, else of its memory.
double IdleBins::used(double tokens, double patches) const {
  const double cap = model_.limits().tokens_per_rank();
  SearchItem item;
  item.tokens = tokens;
  item.patches = patches;
  return cap < kInfinity ? tokens / cap : model_.need(item);
}

std::size_t IdleBins::level_of(double room) const {
  return static_cast<std::size_t>(std::clamp(room, 0.0, 1.0 - 0.5 / kLevels) * kLevels);
}

bool IdleBins::holds(int bin, const SearchItem& item) const {
  const Bin& at_bin = bins_[index(bin)];
  return !one_pack_ || (at_bin.tokens == 0.0 && at_bin.patches == 0.0) ||
         model_.holds(at_bin.tokens + item.tokens, at_bin.patches + item.patches);
}

void IdleBins::renew(Kind& kind, std::size_t level) const {
  std::size_t node = kLevels + level;
  kind.first[node] = kind.by_room[level].empty() ? kNone : *kind.by_room[level].begin();
  for (node /= 2; node >= 1; node /= 2) kind.first[node] = std::min(kind.first[2 * node], kind.first[2 * node + 1]);
}

void IdleBins::insert(int bin) {
  const Bin& here = bins_[index(bin)];
  Kind& kind = kinds_[here.kind];
  kind.by_end.emplace(here.end_s, bin);
  if (!one_pack_) return;
  const std::size_t level = level_of(1.0 - used(here.tokens, here.patches));
  kind.by_room[level].emplace(here.end_s, bin);
  renew(kind, level);
}

void IdleBins::erase(int bin) {
  const Bin& here = bins_[index(bin)];
  Kind& kind = kinds_[here.kind];
  kind.by_end.erase({here.end_s, bin});
  if (!one_pack_) return;
  const std::size_t level = level_of(1.0 - used(here.tokens, here.patches));
  kind.by_room[level].erase({here.end_s, bin});
  renew(kind, level);
}

void IdleBins::put(int bin, const SearchItem& item, double end_s) {
  erase(bin);
  bins_[index(bin)].tokens += item.tokens;
  bins_[index(bin)].patches += item.patches;
  bins_[index(bin)].end_s = end_s;
  insert(bin);
}

/// By a look at all bins, the first to end first.
IdleBins::Entry IdleBins::first_of_all(const Kind& kind, const SearchItem& item) const {
  const auto found = std::find_if(kind.by_end.begin(), kind.by_end.end(),
                                  [&](const Entry& entry) { return holds(entry.second, item); });
  return found == kind.by_end.end() ? kNone : *found;
}

IdleBins::Entry IdleBins::first_in(const Kind& kind, const SearchItem& item) const {
  if (!one_pack_) return kind.by_end.empty() ? kNone : *kind.by_end.begin();
  // Room is rounded: one level more is asked bin by bin.
  const std::size_t level = level_of(used(item.tokens, item.patches));
  const std::size_t sure = level + 1;
  Entry first = kNone;
  std::size_t low = sure + kLevels;
  for (std::size_t high = 2 * kLevels; low < high; low /= 2, high /= 2) {
    if (low % 2 == 1) first = std::min(first, kind.first[low++]);
    if (high % 2 == 1) first = std::min(first, kind.first[--high]);
  }
  if (first.second >= 0 && !holds(first.second, item)) return first_of_all(kind, item);
  for (std::size_t unsure = level == 0 ? 0 : level - 1; unsure <= level; ++unsure) {
    for (const Entry& entry : kind.by_room[unsure]) {
      if (entry >= first) break;
      if (holds(entry.second, item)) {
        first = entry;
        break;
      }
    }
  }
  return first;
}

int IdleBins::find(const SearchItem& item) const {
  int best = -1;
  double best_s = kInfinity;
  for (const Kind& kind : kinds_) {
    Entry first = first_in(kind, item);
    if (first.second < 0) continue;
    const auto end_with = [&](const Entry& entry) {
      return entry.first + item.alone_s / bins_[index(entry.second)].speed;
    };
    const double end_s = end_with(first);
    // Bins that are ready a little later may end at the same time, to rounding: the lowest number of all counts. Where
    // all bins are alike, the first that is ready is taken as it is.
    if (kinds_.size() > 1 || first != *kind.by_end.begin()) {
      for (auto later = kind.by_end.upper_bound({first.first, std::numeric_limits<int>::max()});
           later != kind.by_end.end() && end_with(*later) == end_s; ++later) {
        if (later->second < first.second && holds(later->second, item)) first.second = later->second;
      }
    }
    if (best < 0 || end_s < best_s || (end_s == best_s && first.second < best)) {
      best = first.second;
      best_s = end_s;
    }
  }
  return best;
}

}  // namespace dhp::plan
