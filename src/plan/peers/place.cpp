#include "plan/peers/place.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/index.h"

namespace dhp::plan {
namespace {

/// Groups that fit a node, by degree and by cost. One that is taken from one order stays in the other, which skips it.
class NodeFiller {
 public:
  NodeFiller(std::span<const int> degrees, int widest_node)
      : degrees_(degrees),
        by_degree_(index(widest_node) + 1),
        waiting_(index(widest_node) + 1, 0),
        taken_(degrees.size(), true) {
    for (int group = static_cast<int>(degrees.size()); group-- > 0;) {
      const int degree = degrees[index(group)];
      if (degree > widest_node) continue;
      by_degree_[index(degree)].push_back(group);
      taken_[index(group)] = false;
      ++waiting_[index(degree)];
      ++groups_;
    }
  }

  bool empty() const { return groups_ == 0; }

  /// Takes the waiting groups whose degrees come closest to `room`, large degrees first. May be none.
  std::vector<int> take_best_fill(int room) {
    best_sum_ = 0;
    best_.clear();
    chosen_.clear();
    steps_left_ = kMostSteps;
    search(room, room);
    std::vector<int> groups;
    for (const int degree : best_) groups.push_back(take(degree));
    return groups;
  }

  /// Takes the waiting group that costs least across a node boundary.
  int take_cheapest(const std::function<double(int)>& straddled_s) {
    if (cheapest_.empty()) {
      for (int group = 0; group < std::ssize(taken_); ++group) {
        if (!taken_[index(group)]) cheapest_.emplace_back(straddled_s(group), group);
      }
      std::make_heap(cheapest_.begin(), cheapest_.end(), std::greater<>());
    }
    int group = -1;
    do {
      group = cheapest_.front().second;
      std::pop_heap(cheapest_.begin(), cheapest_.end(), std::greater<>());
      cheapest_.pop_back();
    } while (taken_[index(group)]);
    mark_taken(group);
    return group;
  }

 private:
  // Partitions of a node of 8 number 22, of 16 231: the limit only matters for very wide nodes.
  static constexpr int kMostSteps = 2000;

  /// The lowest that waits, of which there must be one.
  int take(int degree) {
    std::vector<int>& groups = by_degree_[index(degree)];
    while (taken_[index(groups.back())]) groups.pop_back();
    const int group = groups.back();
    mark_taken(group);
    return group;
  }

  void mark_taken(int group) {
    taken_[index(group)] = true;
    --waiting_[index(degrees_[index(group)])];
    --groups_;
  }

  /// Depth first over falling degrees, so that the first best fill has the largest parts. True: filled exactly.
  bool search(int room, int largest) {
    if (--steps_left_ < 0) return true;
    const int sum = std::accumulate(chosen_.begin(), chosen_.end(), 0);
    if (sum > best_sum_) {
      best_sum_ = sum;
      best_ = chosen_;
    }
    if (room == 0) return true;
    for (int degree = std::min(room, largest); degree >= 1; --degree) {
      const auto used = std::count(chosen_.begin(), chosen_.end(), degree);
      if (used >= waiting_[index(degree)]) continue;
      chosen_.push_back(degree);
      if (search(room - degree, degree)) return true;
      chosen_.pop_back();
    }
    return false;
  }

  std::span<const int> degrees_;
  std::vector<std::vector<int>> by_degree_;       // groups in falling order: the lowest is taken from the back
  std::vector<std::pair<double, int>> cheapest_;  // seconds across a boundary and group: a heap, once one is asked for
  std::vector<int> waiting_;                      // groups by degree
  std::vector<bool> taken_;                       // by group; also of those that fit no node
  int groups_ = 0;                                // that wait
  std::vector<int> chosen_;
  std::vector<int> best_;
  int best_sum_ = 0;
  int steps_left_ = 0;
};

}  // namespace

std::vector<int> place_consecutive(std::span<const int> degrees, std::span<const int> node_begins,
                                   const std::function<double(int group)>& straddled_s) {
  int widest_node = 0;
  for (std::size_t i = 1; i < node_begins.size(); ++i) {
    widest_node = std::max(widest_node, node_begins[i] - node_begins[i - 1]);
  }
  std::vector<int> first(degrees.size(), 0);
  std::vector<int> wide;
  for (std::size_t group = 0; group < degrees.size(); ++group) {
    if (degrees[group] > widest_node) wide.push_back(static_cast<int>(group));
  }
  const auto degree_of = [&](int group) { return degrees[static_cast<std::size_t>(group)]; };
  std::sort(wide.begin(), wide.end(),
            [&](int a, int b) { return degree_of(a) != degree_of(b) ? degree_of(a) > degree_of(b) : a < b; });

  int idle = node_begins.back() - std::accumulate(degrees.begin(), degrees.end(), 0);
  int next = 0;
  const auto put = [&](int group) {
    first[static_cast<std::size_t>(group)] = next;
    next += degree_of(group);
  };
  for (const int group : wide) put(group);
  NodeFiller filler(degrees, widest_node);
  while (!filler.empty()) {
    const int end = *std::upper_bound(node_begins.begin(), node_begins.end(), next);
    for (const int group : filler.take_best_fill(end - next)) put(group);
    const int hole = end - next;
    if (filler.empty() || hole == 0) continue;
    if (idle >= hole) {
      idle -= hole;
      next += hole;
    } else {
      put(filler.take_cheapest(straddled_s));
    }
  }
  return first;
}

std::vector<Rank> place_consecutive(std::span<const int> degrees, const Cluster& cluster,
                                    const std::function<double(int group)>& straddled_s) {
  std::vector<int> node_begins(static_cast<std::size_t>(cluster.nodes) + 1);
  for (std::size_t node = 0; node < node_begins.size(); ++node) {
    node_begins[node] = static_cast<int>(node) * cluster.ranks_per_node;
  }
  return place_consecutive(degrees, node_begins, straddled_s);
}

}  // namespace dhp::plan
