#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "dhp/plan.h"

namespace dhp::test {

/// The best free plan there is, found by trying all: every way to divide the batch into tasks, every group of ranks in
/// service that holds a task, every order of the tasks, ring, direct and hierarchical. For about five sequences on five
/// ranks, or eight alike. Shares nothing with planners and bounds; tasks are timed by task_seconds().
///
///     const Plan best = ExhaustiveSearch(batch, cluster, cost).best();  // annotated; no tasks if nothing fits
///
/// Three facts cut the search, and no bound of the library. (1) Tasks may be taken in the order of their starts:
/// sorting a plan by start keeps every rank's own order, hence all times. (2) Ranks of one speed that are ready at one
/// time are alike in a node, and everywhere if a node is a rank: of those the first are taken. (3) So are sequences
/// that differ in their ids alone.
class ExhaustiveSearch {
 public:
  /// No group wider than `widest`; 0: all ranks.
  ExhaustiveSearch(const Batch& batch, const Cluster& cluster, const CostModel& cost, int widest = 0)
      : batch_(batch), cluster_(cluster), cost_(cost), all_((1U << batch.sequences.size()) - 1) {
    make_groups(widest > 0 ? widest : cluster.ranks());
    make_options();
    make_least_rank_seconds();
    if (least_rank_s_[all_] < kInfinity) extend(all_, std::vector<double>(ranks(), 0.0), 0.0, 0.0);
  }

  double makespan_s() const { return best_s_; }  ///< infinite if nothing fits

  Plan best() const {
    Plan plan;
    plan.schedule = Schedule::free;
    plan.ranks = cluster_.ranks();
    for (const Choice& choice : best_) {
      Task task{.id = static_cast<int>(plan.tasks.size()), .ranks = groups_[choice.group].ranks};
      for (std::size_t i = 0; i < batch_.sequences.size(); ++i) {
        if ((choice.set >> i & 1U) != 0) task.sequences.push_back(batch_.sequences[i].id);
      }
      task.exchange = option(choice.set, choice.group).exchange;
      plan.tasks.push_back(task);
    }
    annotate(plan, batch_, cluster_, cost_);
    return plan;
  }

 private:
  using Set = std::uint32_t;  // of sequences, by position in the batch
  static constexpr double kInfinity = std::numeric_limits<double>::infinity();

  struct Group {
    std::vector<Rank> ranks;
    std::uint32_t mask = 0;
  };
  struct Option {
    double seconds = kInfinity;  ///< infinite: does not fit
    Exchange exchange = Exchange::ring;
  };
  struct Choice {
    Set set = 0;
    std::size_t group = 0;
  };

  std::size_t ranks() const { return static_cast<std::size_t>(cluster_.ranks()); }
  const Option& option(Set set, std::size_t group) const { return options_[set * groups_.size() + group]; }

  void make_groups(int widest) {
    for (std::uint32_t mask = 1; mask < 1U << ranks(); ++mask) {
      Group group{.ranks = {}, .mask = mask};
      bool live = true;
      for (Rank rank = 0; rank < cluster_.ranks(); ++rank) {
        if ((mask >> rank & 1U) == 0) continue;
        group.ranks.push_back(rank);
        live = live && cluster_.speed_of(rank) > 0.0;
      }
      if (live && std::ssize(group.ranks) <= widest) groups_.push_back(group);
    }
  }

  void make_options() {
    const double budget = activation_budget_bytes(cost_, cluster_);
    options_.resize((all_ + 1) * groups_.size());
    for (Set set = 1; set <= all_; ++set) {
      Load load;
      for (std::size_t i = 0; i < batch_.sequences.size(); ++i) {
        if ((set >> i & 1U) != 0) load.add(batch_.sequences[i]);
      }
      for (std::size_t g = 0; g < groups_.size(); ++g) {
        const GroupShape shape = shape_of(cluster_, groups_[g].ranks);
        if (task_memory_bytes(cost_, load, shape.degree) > budget) continue;
        Option& best = options_[set * groups_.size() + g];
        for (const Exchange exchange : {Exchange::ring, Exchange::direct, Exchange::hierarchical}) {
          const double seconds = task_seconds(cost_, cluster_, load, shape, exchange);
          if (seconds < best.seconds) best = {seconds, exchange};
        }
      }
    }
  }

  /// For every set of sequences the fewest rank-seconds of any division into tasks and groups.
  void make_least_rank_seconds() {
    std::vector<double> of_task(all_ + 1, kInfinity);
    for (Set set = 1; set <= all_; ++set) {
      for (std::size_t g = 0; g < groups_.size(); ++g) {
        const double rank_s = static_cast<double>(groups_[g].ranks.size()) * option(set, g).seconds;
        of_task[set] = std::min(of_task[set], rank_s);
      }
    }
    least_rank_s_.assign(all_ + 1, kInfinity);
    least_rank_s_[0] = 0.0;
    for (Set set = 1; set <= all_; ++set) {
      for (Set task = set; task != 0; task = (task - 1) & set) {
        least_rank_s_[set] = std::min(least_rank_s_[set], of_task[task] + least_rank_s_[set & ~task]);
      }
    }
  }

  /// Of ranks that are alike a group takes the first ones.
  bool takes_first(const Group& group, const std::vector<double>& ready_s) const {
    for (std::size_t a = 0; a < ranks(); ++a) {
      if ((group.mask >> a & 1U) != 0) continue;
      const auto first = static_cast<Rank>(a);
      for (std::size_t b = a + 1; b < ranks(); ++b) {
        const auto later = static_cast<Rank>(b);
        const bool alike = (cluster_.node_of(first) == cluster_.node_of(later) || cluster_.ranks_per_node == 1) &&
                           cluster_.speed_of(first) == cluster_.speed_of(later) && ready_s[a] == ready_s[b];
        if (alike && (group.mask >> b & 1U) != 0) return false;
      }
    }
    return true;
  }

  /// Of sequences that are alike a task takes the first ones left.
  bool takes_first(Set set, Set left) const {
    const auto& sequences = batch_.sequences;
    for (std::size_t b = 1; b < sequences.size(); ++b) {
      if ((set >> b & 1U) == 0) continue;
      for (std::size_t a = 0; a < b; ++a) {
        if (((left & ~set) >> a & 1U) == 0) continue;
        Sequence other = sequences[a];
        other.id = sequences[b].id;
        if (other == sequences[b]) return false;
      }
    }
    return true;
  }

  /// Adds every task that may come next. `left`: sequences without a task; `from_s`: the last start.
  void extend(Set left, const std::vector<double>& ready_s, double from_s, double end_s) {
    if (left == 0) {
      if (end_s >= best_s_) return;
      best_s_ = end_s;
      best_ = chosen_;
      return;
    }
    double free_rank_s = 0.0;  // that live ranks have left in a better plan
    for (std::size_t rank = 0; rank < ranks(); ++rank) {
      if (cluster_.speed_of(static_cast<Rank>(rank)) > 0.0) free_rank_s += best_s_ - ready_s[rank];
    }
    if (least_rank_s_[left] > free_rank_s * (1 + 1e-12)) return;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      const Group& group = groups_[g];
      if (!takes_first(group, ready_s)) continue;
      double start = 0.0;
      for (const Rank rank : group.ranks) start = std::max(start, ready_s[static_cast<std::size_t>(rank)]);
      if (start < from_s) continue;
      for (Set set = left; set != 0; set = (set - 1) & left) {
        if (!takes_first(set, left)) continue;
        const double end = start + option(set, g).seconds;
        if (!(end < best_s_)) continue;
        std::vector<double> ready_after = ready_s;
        for (const Rank rank : group.ranks) ready_after[static_cast<std::size_t>(rank)] = end;
        chosen_.push_back({set, g});
        extend(left & ~set, ready_after, start, std::max(end_s, end));
        chosen_.pop_back();
      }
    }
  }

  const Batch& batch_;
  const Cluster& cluster_;
  const CostModel& cost_;
  Set all_;
  std::vector<Group> groups_;
  std::vector<Option> options_;  // by set, then group
  std::vector<double> least_rank_s_;
  std::vector<Choice> chosen_;
  std::vector<Choice> best_;
  double best_s_ = kInfinity;
};

}  // namespace dhp::test
