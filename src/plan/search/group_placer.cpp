#include "plan/search/group_placer.h"
#include "base/number_limits.h"

#include <algorithm>
#include <numeric>
#include <tuple>

namespace dhp::plan {
namespace {

// What counts as waste. Found by trial on bench/cases with build/release/bench/plan_quality; the results move little
// around these values.
constexpr double kFillableShare = 0.15;  // of a hole that something else may fill
constexpr double kShortHole = 0.1;       // of the shortest task: up to here a hole is lost in full
constexpr double kDeadTailShare = 0.5;   // of a tail too short for any task
constexpr double kLate = 100.0;          // per second beyond the target
constexpr double kCheap = 5e-5;          // of the target: waste for which no other kind of place is looked at

}  // namespace

GroupPlacer::GroupPlacer(const FreeCell& cell) : cell_(cell), model_(cell.model()) {
  ready_s_.resize(index(cell.ranks()));
  sorted_.resize(index(cell.ranks()));
}

void GroupPlacer::start(double target_s, double shortest_s) {
  target_s_ = target_s;
  shortest_s_ = shortest_s;
  groups_.clear();
  members_.clear();
  holes_.clear();
  last_end_s_ = 0.0;
  std::fill(ready_s_.begin(), ready_s_.end(), 0.0);
  std::iota(sorted_.begin(), sorted_.end(), 0);
  all_.clear();
  if (!cell_.uniform() || cell_.blocks().size() > 1) return;
  for (int rank = 0; rank < cell_.ranks(); ++rank) all_.emplace_back(0.0, rank);
}

double GroupPlacer::waste(double hole_s) const {
  const double full = kShortHole * shortest_s_;
  return hole_s <= full ? hole_s : full + kFillableShare * (hole_s - full);
}

double GroupPlacer::dead_tail(double tail_s) const {
  return tail_s > 0.0 && tail_s < shortest_s_ ? kDeadTailShare * tail_s : 0.0;
}

/// Ranks of a pool by ready time, without those slower than `least_speed`.
std::span<const int> GroupPlacer::ready_ranks(const Pool& pool, double least_speed) {
  const std::span<const int> all(sorted_.data() + pool.begin, index(pool.size()));
  if (cell_.uniform()) return all;
  filtered_.clear();
  for (const int rank : all) {
    if (cell_.speed(rank) >= least_speed) filtered_.push_back(rank);
  }
  return filtered_;
}

/// Keeps the window if it wastes less than the best so far. `ranks` need not be sorted.
void GroupPlacer::consider(const SearchItem& item, std::span<const int> ranks, const Transfer& transfer) {
  ticks_ += kTicksOfTime + std::ssize(ranks);
  double start = 0.0;
  double speed = 1.0;
  for (const int rank : ranks) {
    start = std::max(start, ready_s_[index(rank)]);
    speed = std::min(speed, cell_.speed(rank));
  }
  const int degree = static_cast<int>(ranks.size());
  const double seconds = model_.seconds(item, degree, transfer, speed);
  const double end = start + seconds;
  double cost = end > target_s_ ? (end - target_s_) * kLate : dead_tail(target_s_ - end) * degree;
  // Rank time that slower links take, and quick ranks that wait for slow ones.
  cost += std::max(0.0, seconds - best_seconds_) * degree;
  if (cost >= spot_.cost) return;
  for (const int rank : ranks) {
    cost += waste(start - ready_s_[index(rank)]);
    if (!cell_.uniform()) cost += (cell_.speed(rank) / speed - 1.0) * seconds;
  }
  if (cost > spot_.cost || (cost == spot_.cost && start >= spot_.start_s)) return;
  spot_ = {cost, start, end, transfer.exchange, true};
  spot_ranks_.assign(ranks.begin(), ranks.end());
}

/// Windows of ranks that become ready one after the other, inside a node.
void GroupPlacer::try_pools(const SearchItem& item, int degree) {
  const Transfer& transfer = cell_.best_transfer(degree);
  if (!cell_.uniform()) {
    for (const double least : cell_.speed_steps()) {
      for (const Pool& pool : cell_.pools()) {
        const auto ranks = ready_ranks(pool, least);
        for (std::size_t first = 0; first + index(degree) <= ranks.size(); ++first) {
          consider(item, ranks.subspan(first, index(degree)), transfer);
        }
      }
    }
    return;
  }
  // The same as consider(), without asking every rank for its speed.
  const double seconds = best_seconds_;
  const int* best_ranks = nullptr;
  for (const Pool& pool : cell_.pools()) {
    const int* sorted = sorted_.data() + pool.begin;
    for (int first = 0; first + degree <= pool.size(); ++first) {
      const double start = ready_s_[index(sorted[first + degree - 1])];
      const double end = start + seconds;
      double cost = end > target_s_ ? (end - target_s_) * kLate : 0.0;
      if (cost >= spot_.cost) break;
      ticks_ += degree;
      if (end <= target_s_) cost += dead_tail(target_s_ - end) * degree;
      for (int i = 0; i + 1 < degree; ++i) cost += waste(start - ready_s_[index(sorted[first + i])]);
      if (cost > spot_.cost || (cost == spot_.cost && start >= spot_.start_s)) continue;
      spot_ = {cost, start, end, transfer.exchange, true};
      best_ranks = sorted + first;
    }
  }
  ticks_ += 2 * std::ssize(cell_.pools());
  if (best_ranks != nullptr) spot_ranks_.assign(best_ranks, best_ranks + degree);
}

/// Spread evenly over the fewest nodes: windows of nodes by the readiness of as many ranks as each must give.
void GroupPlacer::try_even(const SearchItem& item, int degree, const PoolRange& block, double least_speed) {
  const int nodes = cell_.fewest_nodes(degree);
  const int most = (degree + nodes - 1) / nodes;
  order_.clear();
  for (int p = block.begin; p < block.end; ++p) {
    const auto ranks = ready_ranks(cell_.pools()[index(p)], least_speed);
    if (std::ssize(ranks) >= most) order_.emplace_back(ready_s_[index(ranks[index(most - 1)])], p);
  }
  if (std::ssize(order_) < nodes) return;
  std::sort(order_.begin(), order_.end());
  for (int first = 0; first + nodes <= static_cast<int>(order_.size()); ++first) {
    const double start = order_[index(first + nodes - 1)].first;
    if (start + best_seconds_ > target_s_ && spot_.found && start >= spot_.start_s) break;
    window_.clear();
    int left = degree;
    for (int n = 0; n < nodes; ++n) {
      const int count = (left + nodes - n - 1) / (nodes - n);
      left -= count;
      const auto ranks = ready_ranks(cell_.pools()[index(order_[index(first + n)].second)], least_speed);
      // The latest that are ready by then: least idle time.
      std::size_t begin = 0;
      while (begin + index(count) < ranks.size() && ready_s_[index(ranks[begin + index(count)])] <= start) ++begin;
      for (const int rank : ranks.subspan(begin, index(count))) window_.push_back(rank);
    }
    consider(item, window_, cell_.best_transfer(degree));
  }
}

/// Ranks of a block by ready time, ties by number.
std::span<const std::pair<double, int>> GroupPlacer::ranks_of_block(const PoolRange& block, double least_speed) {
  if (all_.empty()) {
    order_.clear();
    for (int p = block.begin; p < block.end; ++p) {
      for (const int rank : ready_ranks(cell_.pools()[index(p)], least_speed)) {
        order_.emplace_back(ready_s_[index(rank)], rank);
      }
    }
    std::sort(order_.begin(), order_.end());
    return order_;
  }
  // Few have changed since the last time.
  moved_.clear();
  kept_.clear();
  for (const auto& [ready_s, rank] : all_) {
    const double now_s = ready_s_[index(rank)];
    (now_s == ready_s ? kept_ : moved_).emplace_back(now_s, rank);
  }
  std::sort(moved_.begin(), moved_.end());
  std::merge(kept_.begin(), kept_.end(), moved_.begin(), moved_.end(), all_.begin());
  return all_;
}

const Transfer& GroupPlacer::transfer_of(std::span<const int> ranks) {
  const GroupShape shape = cell_.shape(ranks);
  const auto numbers = [](const GroupShape& s) {
    return std::tuple(s.degree, s.nodes, s.most_on_node, s.fewest_on_node);
  };
  if (numbers(shape) != numbers(last_shape_)) {
    last_shape_ = shape;
    last_transfer_ = model_.transfer(shape);
  }
  return last_transfer_;
}

/// Windows of a block's ranks that become ready one after the other, on whatever nodes. Always finds a place where the
/// block has as many ranks.
void GroupPlacer::try_anywhere(const SearchItem& item, int degree, const PoolRange& block, double least_speed) {
  const std::span<const std::pair<double, int>> order = ranks_of_block(block, least_speed);
  const int ranks = static_cast<int>(order.size());
  ticks_ += 4 * std::ssize(order);
  for (int first = 0; first + degree <= ranks; ++first) {
    const double start = order[index(first + degree - 1)].first;
    if (first + degree < ranks && order[index(first + degree)].first == start) continue;  // the next wastes less
    double cost = 0.0;
    ticks_ += degree;
    for (int i = 0; i < degree && cost < spot_.cost; ++i) cost += waste(start - order[index(first + i)].first);
    if (cost >= spot_.cost) continue;
    window_.clear();
    for (int i = 0; i < degree; ++i) window_.push_back(order[index(first + i)].second);
    consider(item, window_, transfer_of(window_));
  }
}

/// Ranks that follow each other.
void GroupPlacer::try_consecutive(const SearchItem& item, int degree, const PoolRange& block) {
  const int begin = cell_.pools()[index(block.begin)].begin;
  window_.resize(index(degree));
  for (int first = begin; first + degree <= begin + block.ranks; ++first) {
    std::iota(window_.begin(), window_.end(), first);
    consider(item, window_, transfer_of(window_));
  }
}

void GroupPlacer::place(const SearchItem& item, std::int32_t index, int degree) {
  spot_ = {kInfinity, 0.0, 0.0, Exchange::ring, false};
  best_seconds_ = cell_.best_seconds(item, degree);
  if (model_.limits().consecutive()) {
    for (const PoolRange& block : cell_.blocks()) try_consecutive(item, degree, block);
  } else {
    if (degree <= cell_.largest_pool()) try_pools(item, degree);
    for (const double least : cell_.speed_steps()) {
      for (const PoolRange& block : cell_.blocks()) {
        if (block.ranks < degree || (spot_.found && spot_.cost <= kCheap * target_s_)) continue;
        if (degree > cell_.largest_pool()) try_even(item, degree, block, least);
        if (block.end - block.begin > 1 && (!spot_.found || spot_.cost > kCheap * target_s_)) {
          try_anywhere(item, degree, block, least);
        }
      }
    }
  }
  occupy(index, degree);
}

void GroupPlacer::occupy(std::int32_t item, int degree) {
  groups_.push_back({item, degree, static_cast<int>(members_.size()), spot_.start_s, spot_.end_s, spot_.exchange});
  last_end_s_ = std::max(last_end_s_, spot_.end_s);
  ticks_ += kTicksOfTime + 2 * std::int64_t{degree};
  for (const int rank : spot_ranks_) {
    members_.push_back(rank);
    const double hole = spot_.start_s - ready_s_[index(rank)];
    if (hole > model_.pack_s()) holes_.push_back({rank, ready_s_[index(rank)], hole});
    ready_s_[index(rank)] = spot_.end_s;
    sort_in(rank);
  }
}

/// Moves a rank whose ready time has grown to its new position in its pool.
void GroupPlacer::sort_in(int rank) {
  const Pool& pool = cell_.pools()[index(cell_.pool_of(rank))];
  const auto end = sorted_.begin() + pool.end;
  auto here = std::find(sorted_.begin() + pool.begin, end, rank);
  for (auto next = here + 1; next != end && ready_s_[index(*next)] < ready_s_[index(rank)]; ++here, ++next)
    *here = *next;
  *here = rank;
}

}  // namespace dhp::plan
