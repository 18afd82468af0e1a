#include "plan/lockstep/fill.h"

#include <algorithm>
#include <iterator>
#include <numeric>
#include <queue>
#include <tuple>

namespace dhp::plan {
namespace {

constexpr int kMostLooks = 8;     // at items for a rider
constexpr int kMostPools = 64;    // whole ones that a group tries to grow by
constexpr double kShorter = 0.9;  // than what fits if transfers fell as work does: they fall less

}  // namespace

LeftItems::LeftItems(std::size_t count) : next_(count + 1) { std::iota(next_.begin(), next_.end(), 0); }

int LeftItems::next(int position) {
  auto here = static_cast<std::size_t>(position);
  while (next_[here] != static_cast<std::int32_t>(here)) {
    next_[here] = next_[static_cast<std::size_t>(next_[here])];
    here = static_cast<std::size_t>(next_[here]);
  }
  return static_cast<int>(here);
}

MicroBatchFiller::MicroBatchFiller(const FreeCell& cell, std::span<const SearchItem> items, bool no_idle_ranks)
    : cell_(cell),
      items_(items),
      no_idle_ranks_(no_idle_ranks),
      consecutive_(cell.model().limits().consecutive()),
      free_(cell.pools().size()),
      whole_(cell.pools().size()) {
  sizes_.reserve(items.size());
  for (const SearchItem& item : items) sizes_.push_back({item.alone_s, cell.model().need(item)});
  for (const PoolRange& block : cell.blocks()) {
    const int size = cell.pools()[index(block.begin)].size();
    const bool same = std::all_of(cell.pools().begin() + block.begin, cell.pools().begin() + block.end,
                                  [&](const Pool& pool) { return pool.size() == size; });
    pool_size_.push_back(same ? size : 0);
  }
}

/// To be called whenever ranks have become free.
void MicroBatchFiller::index_pools() {
  const int pools = static_cast<int>(free_.size());
  by_count_.clear();
  whole_ = LeftItems(free_.size());
  for (int pool = 0; pool < pools; ++pool) {
    by_count_.push_back({static_cast<int>(free_[index(pool)].size()), pool});
    if (!is_whole(pool)) whole_.take(pool);
  }
  std::sort(by_count_.begin(), by_count_.end());
}

/// The smallest degree at which the item ends by `target_s`; else the quickest.
int MicroBatchFiller::degree_within(const SearchItem& item, double target_s) const {
  int best = item.min_degree;
  double best_s = cell_.best_seconds(item, best);
  const int widest = std::min(item.max_degree, cell_.widest());
  for (int degree = best + 1; degree <= widest && best_s > target_s; ++degree) {
    if (!cell_.model().limits().allows(degree)) continue;
    const double seconds = cell_.best_seconds(item, degree);
    ticks_ += kTicksOfTime;
    if (seconds >= best_s) continue;
    best = degree;
    best_s = seconds;
  }
  return best;
}

/// The quickest free ranks of a pool.
void MicroBatchFiller::take(int pool, int count, LockGroup& group) {
  std::vector<int>& free = free_[index(pool)];
  group.ranks.insert(group.ranks.end(), free.end() - count, free.end());
  if (is_whole(pool)) whole_.take(pool);
  const PoolCount before{static_cast<int>(free.size()), pool};
  free.resize(free.size() - index(count));
  const PoolCount after{static_cast<int>(free.size()), pool};
  const auto from = std::lower_bound(by_count_.begin(), by_count_.end(), before);
  const auto to = std::lower_bound(by_count_.begin(), from, after);
  std::move_backward(to, from, from + 1);
  *to = after;
}

/// From the pool where the least is left over.
bool MicroBatchFiller::take_from_pool(int degree, LockGroup& group) {
  auto best = std::lower_bound(by_count_.begin(), by_count_.end(), PoolCount{degree, 0});
  if (best == by_count_.end()) return false;
  // Where groups are consecutive, the first pools are kept whole for wide ones.
  if (consecutive_) best = std::lower_bound(best, by_count_.end(), PoolCount{best->free + 1, 0}) - 1;
  take(best->pool, degree, group);
  return true;
}

/// Pools that follow each other, all of them whole; the last one may keep some of its ranks.
bool MicroBatchFiller::take_run_of_pools(const PoolRange& block, int degree, LockGroup& group) {
  for (int begin = block.begin; begin < block.end; ++begin) {
    int ranks = 0;
    int end = begin;
    for (; end < block.end && ranks < degree && is_whole(end); ++end) ranks += cell_.pools()[index(end)].size();
    if (ranks < degree) {
      begin = end;  // no run over this pool has more
      continue;
    }
    for (int pool = begin; pool < end; ++pool) {
      take(pool, std::min(cell_.pools()[index(pool)].size(), degree - group.degree()), group);
    }
    return true;
  }
  return false;
}

/// Moves the groups of each pool together, so that the ranks of each follow each other.
void MicroBatchFiller::line_up(MicroBatch& micro_batch) const {
  std::vector<int> next;  // by pool: the first rank without a group
  for (const Pool& pool : cell_.pools()) next.push_back(pool.begin);
  const auto is_wide = [&](const LockGroup& group) {
    return cell_.pool_of(group.ranks.front()) != cell_.pool_of(group.ranks.back());
  };
  for (const LockGroup& group : micro_batch.groups) {
    if (!is_wide(group)) continue;
    for (const int rank : group.ranks) ++next[index(cell_.pool_of(rank))];  // from the pools' begins on
  }
  for (LockGroup& group : micro_batch.groups) {
    if (is_wide(group)) continue;
    int& first = next[index(cell_.pool_of(group.ranks.front()))];
    std::iota(group.ranks.begin(), group.ranks.end(), first);
    first += group.degree();
    settle(group);
  }
}

/// Whole pools of the block, the largest first: all, or as many as hold so many ranks.
std::vector<int> MicroBatchFiller::whole_pools(const PoolRange& block, int degree) {
  const int size = pool_size_[index(cell_.block_of(block.begin))];
  std::vector<int> whole;
  for (int pool = whole_.next(block.begin); pool < block.end; pool = whole_.next(pool + 1)) {
    if (size > 0 && static_cast<int>(whole.size()) * size >= degree) break;
    whole.push_back(pool);
  }
  std::stable_sort(whole.begin(), whole.end(),
                   [&](int a, int b) { return free_[index(a)].size() > free_[index(b)].size(); });
  return whole;
}

/// Whole pools of one block, the largest first, as many as it takes; all their ranks where the item may have so many.
bool MicroBatchFiller::take_whole_pools(const SearchItem& item, int degree, LockGroup& group) {
  for (const PoolRange& block : cell_.blocks()) {
    if (consecutive_) {
      if (take_run_of_pools(block, degree, group)) return true;
      continue;
    }
    const std::vector<int> whole = whole_pools(block, degree);
    int ranks = 0;
    std::size_t pools = 0;
    for (; pools < whole.size() && ranks < degree; ++pools)
      ranks += static_cast<int>(free_[index(whole[pools])].size());
    if (ranks < degree) continue;
    if (ranks <= item.max_degree && cell_.model().limits().allows(ranks)) degree = ranks;
    int later = ranks;  // of the pools behind the one at hand
    for (std::size_t i = 0; i < pools; ++i) {
      const int left = degree - group.degree();
      const int share = (left + static_cast<int>(pools - i) - 1) / static_cast<int>(pools - i);
      // A small pool passes on what it lacks; the largest come first, so the last ones have to be looked at.
      const int size = static_cast<int>(free_[index(whole[i])].size());
      later -= size;
      take(whole[i], std::min(size, std::max(share, left - later)), group);
    }
    return true;
  }
  return false;
}

bool MicroBatchFiller::find_ranks(const SearchItem& item, int degree, LockGroup& group) {
  group.ranks.clear();
  const bool found =
      degree <= cell_.largest_pool() ? take_from_pool(degree, group) : take_whole_pools(item, degree, group);
  if (found) settle(group);
  return found;
}

void MicroBatchFiller::settle(LockGroup& group) const {
  group.speed = 1.0;
  for (const int rank : group.ranks) group.speed = std::min(group.speed, cell_.speed(rank));
  group.shape = cell_.shape(group.ranks);
  settle_transfer(group);
}

/// Finds transfer and seconds of a group whose shape and speed are known.
void MicroBatchFiller::settle_transfer(LockGroup& group) const {
  group.transfer = group.shape.nodes == 1 ? cell_.best_transfer(group.degree()) : cell_.model().transfer(group.shape);
  group.seconds = cell_.model().seconds(group.load, group.degree(), group.transfer, group.speed);
}

/// The first item left that its work and memory let fit beside the group's.
int MicroBatchFiller::first_within(LeftItems& left, double room_s, double room) const {
  ticks_ += kTicksOfTime;
  // Longer items mostly need more memory too, so this is where those that fit begin, or a few positions off.
  const auto first = std::partition_point(sizes_.begin(), sizes_.end(),
                                          [&](const Size& item) { return item.alone_s > room_s || item.need > room; });
  return left.next(static_cast<int>(first - sizes_.begin()));
}

/// Lets the longest shorter item that time and memory of the group allow ride in it.
bool MicroBatchFiller::add_rider(LeftItems& left, double target_s, LockGroup& group) const {
  const int degree = group.degree();
  const double room_s = target_s - group.seconds;
  if (room_s <= 0.0) return false;
  const double room = degree - cell_.model().need(group.load);
  int position = first_within(left, room_s * degree * group.speed, room);
  for (int looks = 0; position < left.count() && looks < kMostLooks; ++looks) {
    const SearchItem& rider = items_[index(position)];
    SearchItem load = group.load;
    load.add(rider);
    ticks_ += kTicksOfTime;
    int next = position + 1;
    if (rider.max_degree >= degree && fits(load, degree)) {
      const double seconds = cell_.model().seconds(load, degree, group.transfer, group.speed);
      if (seconds <= target_s) {
        group.load = load;
        group.seconds = seconds;
        group.items.push_back(position);
        left.take(position);
        return true;
      }
      // Transfers make it longer than its work: on to one that is as much shorter as this one is too long.
      next = std::max(next, first_within(left, kShorter * rider.alone_s * room_s / (seconds - group.seconds), room));
    }
    position = left.next(next);
  }
  return false;
}

/// `count` more ranks of the pool for the group, if that is allowed and makes it quicker.
bool MicroBatchFiller::grow(LockGroup& group, int pool, int count, bool even_if_slower) {
  const int degree = group.degree() + count;
  if (degree > std::min(group.load.max_degree, cell_.widest()) || !cell_.model().limits().allows(degree)) return false;
  std::vector<int>& free = free_[index(pool)];
  const auto joining = std::span(free).last(index(count));
  const double seconds = group.seconds;
  const auto before = std::tuple(group.shape, group.transfer, group.speed, seconds);
  group.ranks.insert(group.ranks.end(), joining.begin(), joining.end());
  if (is_whole(pool)) {
    // None of the group's ranks is there: no need to look at all of them again.
    for (const int rank : joining) group.speed = std::min(group.speed, cell_.speed(rank));
    group.shape = {degree, group.shape.nodes + 1, std::max(group.shape.most_on_node, count),
                   std::min(group.shape.fewest_on_node, count), 1.0};
    settle_transfer(group);
  } else {
    settle(group);
  }
  if (group.seconds >= seconds && !even_if_slower) {
    group.ranks.resize(group.ranks.size() - index(count));
    std::tie(group.shape, group.transfer, group.speed, group.seconds) = before;
    return false;
  }
  if (is_whole(pool)) whole_.take(pool);
  free.resize(free.size() - index(count));
  return true;
}

/// The first of the group's ways to grow: by ranks of its own pool, or, where it has whole pools, by another whole one.
bool MicroBatchFiller::grow_somewhere(LockGroup& group, bool even_if_slower) {
  const int home = cell_.pool_of(group.ranks.front());
  const bool wide = home != cell_.pool_of(group.ranks.back());
  if (wide && consecutive_) return false;
  const auto grows_at_home = [&] {
    const int free = static_cast<int>(free_[index(home)].size());
    for (int count = 1; count <= free; ++count) {
      if (grow(group, home, count, even_if_slower)) return true;
    }
    return false;
  };
  // Across nodes only whole ones, and only for groups that have whole ones already.
  if (consecutive_ || (!wide && group.degree() < cell_.largest_pool())) return grows_at_home();
  int in_vain = 0;  // size of a pool: where ranks are alike, another of this size is no better
  int tries = 0;
  const auto grows_between = [&](int begin, int end) {
    for (int pool = whole_.next(begin); pool < end && tries < kMostPools; pool = whole_.next(pool + 1)) {
      const int size = cell_.pools()[index(pool)].size();
      if (cell_.uniform() && size == in_vain) continue;
      if (grow(group, pool, size, even_if_slower)) return true;
      ++tries;
      in_vain = size;
    }
    return false;
  };
  const PoolRange& block = cell_.blocks()[index(cell_.block_of(home))];
  return grows_between(block.begin, home) || grows_at_home() || grows_between(home + 1, block.end);
}

/// Free ranks join the slowest group of their pool that they make quicker; a pool without groups joins a wide one. A
/// group that cannot grow never can again: what is free only gets less.
void MicroBatchFiller::use_free_ranks(MicroBatch& micro_batch) {
  struct Turn {
    double seconds = 0.0;
    std::int64_t number = 0;  // among equals
    LockGroup* group = nullptr;

    /// Whether it is the other's turn first.
    bool operator<(const Turn& other) const {
      return seconds != other.seconds ? seconds < other.seconds : number > other.number;
    }
  };
  std::vector<LockGroup*> by_time;
  for (LockGroup& group : micro_batch.groups) by_time.push_back(&group);
  std::stable_sort(by_time.begin(), by_time.end(),
                   [](const LockGroup* a, const LockGroup* b) { return a->seconds > b->seconds; });
  for (const bool even_if_slower : {false, true}) {
    if (even_if_slower && !no_idle_ranks_) return;
    std::int64_t first = 0;
    std::int64_t last = 0;
    std::priority_queue<Turn> turns;
    for (LockGroup* group : by_time) turns.push({group->seconds, ++last, group});
    by_time.clear();
    while (!turns.empty()) {
      Turn turn = turns.top();
      turns.pop();
      if (!grow_somewhere(*turn.group, even_if_slower)) {
        by_time.push_back(turn.group);
        continue;
      }
      // As a stable sort would have it: from above it comes first among equals, from below last.
      if (turn.group->seconds < turn.seconds) turn.number = --first;
      if (turn.group->seconds > turn.seconds) turn.number = ++last;
      turn.seconds = turn.group->seconds;
      turns.push(turn);
    }
  }
}

void MicroBatchFiller::free_all() {
  for (std::size_t p = 0; p < free_.size(); ++p) {
    const Pool& pool = cell_.pools()[p];
    free_[p].resize(index(pool.size()));
    std::iota(free_[p].begin(), free_[p].end(), pool.begin);
    if (cell_.uniform() || consecutive_) {
      std::reverse(free_[p].begin(), free_[p].end());
    } else {
      std::stable_sort(free_[p].begin(), free_[p].end(), [&](int a, int b) { return cell_.speed(a) < cell_.speed(b); });
    }
  }
}

void MicroBatchFiller::complete(MicroBatch& micro_batch) {
  free_all();
  std::vector<bool> used(index(cell_.ranks()), false);
  for (const LockGroup& group : micro_batch.groups) {
    for (const int rank : group.ranks) used[index(rank)] = true;
  }
  for (std::vector<int>& free : free_) std::erase_if(free, [&](int rank) { return used[index(rank)]; });
  index_pools();
  use_free_ranks(micro_batch);
  if (consecutive_) line_up(micro_batch);
  micro_batch.seconds = micro_batch.work_s = 0.0;
  micro_batch.idle_ranks = 0;
  for (const LockGroup& group : micro_batch.groups) {
    micro_batch.work_s += group.load.alone_s + cell_.model().need(group.load) * cell_.model().pack_s();
    micro_batch.seconds = std::max(micro_batch.seconds, group.seconds);
  }
  for (const std::vector<int>& free : free_) micro_batch.idle_ranks += static_cast<int>(free.size());
}

MicroBatch MicroBatchFiller::fill(LeftItems& left, double target_s) {
  MicroBatch result;
  free_all();
  const std::vector<int> slow = set_slow_aside();
  index_pools();
  fill_groups(left, target_s, result);
  if (result.groups.empty()) {
    // Too long for the quick ranks alone.
    free_all();
    index_pools();
    fill_groups(left, target_s, result);
  } else {
    Rejected rejected;
    for (const int rank : slow) fill_slow_rank(rank, left, target_s, result, rejected);
  }
  complete(result);
  return result;
}

void MicroBatchFiller::fill_groups(LeftItems& left, double target_s, MicroBatch& micro_batch) {
  int ranks = 0;
  for (const std::vector<int>& free : free_) ranks += static_cast<int>(free.size());
  for (int position = left.next(0); position < left.count() && ranks > 0; position = left.next(position + 1)) {
    const SearchItem& item = items_[index(position)];
    const int degree = degree_within(item, target_s);
    if (degree > ranks) continue;
    ticks_ += 4 * kTicksOfTime;
    LockGroup group;
    group.load = item;
    group.items = {position};
    if (!find_ranks(item, degree, group)) continue;
    left.take(position);
    while (add_rider(left, target_s, group)) {
    }
    ranks -= group.degree();
    micro_batch.groups.push_back(std::move(group));
  }
}

/// A group is as slow as its slowest rank: much slower ones are kept out of groups. Returns them, the quickest first.
std::vector<int> MicroBatchFiller::set_slow_aside() {
  constexpr double kSlow = 0.95;  // of the top speed
  std::vector<int> slow;
  if (cell_.uniform()) return slow;
  for (std::vector<int>& free : free_) {
    const auto is_slow = [&](int rank) { return cell_.speed(rank) < kSlow * cell_.top_speed(); };
    std::copy_if(free.begin(), free.end(), std::back_inserter(slow), is_slow);
    std::erase_if(free, is_slow);
  }
  std::stable_sort(slow.begin(), slow.end(), [&](int a, int b) { return cell_.speed(a) > cell_.speed(b); });
  return slow;
}

/// What a slow rank alone ends by the target: the longest such item, and riders. The items that a quicker rank did not
/// end by then are not looked at again, but counted.
void MicroBatchFiller::fill_slow_rank(int rank, LeftItems& left, double target_s, MicroBatch& micro_batch,
                                      Rejected& rejected) const {
  ticks_ += rejected.count;
  for (int position = left.next(rejected.end); position < left.count(); position = left.next(rejected.end)) {
    ticks_ += 1;
    const SearchItem& item = items_[index(position)];
    if (item.min_degree == 1) {
      LockGroup group;
      group.load = item;
      group.items = {position};
      group.ranks = {rank};
      settle(group);
      if (group.seconds <= target_s) {
        left.take(position);
        while (add_rider(left, target_s, group)) {
        }
        micro_batch.groups.push_back(std::move(group));
        return;
      }
    }
    rejected.end = position + 1;
    ++rejected.count;
  }
}

}  // namespace dhp::plan
