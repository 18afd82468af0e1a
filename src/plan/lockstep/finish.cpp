#include "plan/lockstep/finish.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/index.h"
#include "base/number_limits.h"
#include "plan/search/alone_filler.h"

namespace dhp::plan {
namespace {

constexpr int kMore = 2;           // micro-batches beyond the fewest
constexpr int kFinishSteps = 400;  // swaps that level the ends of ranks, at most

LockGroup group_of(std::span<const SearchItem> items, std::span<const std::int32_t> members, int rank) {
  LockGroup group;
  group.ranks = {rank};
  group.load = items[index(members[0])];
  for (const std::int32_t member : members.subspan(1)) group.load.add(items[index(member)]);
  group.items.assign(members.begin(), members.end());
  return group;
}

/// `count` micro-batches; nothing where they cannot hold all.
MicroBatches deal(const FreeCell& cell, std::span<const SearchItem> items, std::span<const std::int32_t> alone,
                  int count, MicroBatchFiller& filler) {
  Lanes bins{{}, cell.uniform(), cell.total_speed() * count};
  for (int k = 0; k < count; ++k) {
    bins.speed.insert(bins.speed.end(), cell.lanes().speed.begin(), cell.lanes().speed.end());
  }
  AloneFiller levels(cell.model(), bins, items, true);
  const std::vector<double> ready_s(index(bins.count()), 0.0);
  if (levels.fill(alone, ready_s, {}) == kInfinity) return {};
  levels.level(kFinishSteps, 0.0);
  std::vector<int> order(index(bins.count()));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return levels.end_s()[index(a)] > levels.end_s()[index(b)]; });
  MicroBatches result(index(count));
  std::vector<std::size_t> tasks(index(cell.ranks()), 0);  // by rank
  int next = 0;
  for (const int bin : order) {
    if (levels.tail(bin).empty()) continue;
    // Where ranks differ in speed, a bin belongs to its rank.
    const int rank = cell.uniform() ? next++ % cell.ranks() : bin % cell.ranks();
    LockGroup group = group_of(items, levels.tail(bin), rank);
    filler.settle(group);
    result[tasks[index(rank)]++].groups.push_back(std::move(group));
  }
  std::erase_if(result, [](const MicroBatch& one) { return one.groups.empty(); });
  for (MicroBatch& one : result) filler.complete(one);
  return result;
}

/// All of it on all ranks at once; nothing where that is not allowed or does not fit.
MicroBatches together(const FreeCell& cell, std::span<const SearchItem> items, LeftItems& left,
                      MicroBatchFiller& filler) {
  LockGroup group;
  group.items.push_back(left.next(0));
  group.load = items[index(left.next(0))];
  for (int position = left.next(left.next(0) + 1); position < left.count(); position = left.next(position + 1)) {
    group.load.add(items[index(position)]);
    group.items.push_back(position);
  }
  const bool allowed = cell.ranks() <= std::min(group.load.max_degree, cell.widest()) &&
                       cell.model().limits().allows(cell.ranks()) && filler.fits(group.load, cell.ranks());
  if (!allowed) return {};
  for (int rank = 0; rank < cell.ranks(); ++rank) group.ranks.push_back(rank);
  filler.settle(group);
  MicroBatches result(1);
  result[0].groups.push_back(std::move(group));
  filler.complete(result[0]);
  return result;
}

}  // namespace

std::vector<MicroBatches> finishes(const FreeCell& cell, std::span<const SearchItem> items, LeftItems& left,
                                   MicroBatchFiller& filler, Ceiling& ceiling) {
  std::vector<MicroBatches> result;
  if (MicroBatches all = together(cell, items, left, filler); !all.empty()) result.push_back(std::move(all));
  if (ceiling.dealt) return result;
  double need = 0.0;
  double work_s = 0.0;
  std::vector<std::int32_t> alone;
  for (int position = left.next(0); position < left.count(); position = left.next(position + 1)) {
    if (items[index(position)].min_degree > 1) return result;
    need += cell.model().need(items[index(position)]);
    work_s += items[index(position)].alone_s;
    alone.push_back(position);
  }
  const double by_time = std::min(work_s / (cell.total_speed() * ceiling.seconds), static_cast<double>(alone.size()));
  const int fewest = static_cast<int>(std::max(need / cell.ranks(), by_time)) + 1;
  ceiling.dealt = std::isfinite(ceiling.seconds);
  const int most = ceiling.dealt ? fewest : fewest + kMore;
  for (int count = fewest; count <= most; ++count) {
    MicroBatches dealt = deal(cell, items, alone, count, filler);
    if (!dealt.empty()) result.push_back(std::move(dealt));
  }
  return result;
}

}  // namespace dhp::plan
