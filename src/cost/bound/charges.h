#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <span>
#include <vector>

#include "base/index.h"
#include "base/number_limits.h"
#include "cost/bound/least_transfer.h"
#include "cost/terms.h"
#include "dhp/bound.h"

// What the tighter lower bound charges sequences, in the names of docs/bounds.md.
namespace dhp {

inline constexpr int kPasses = 2;  // forward and backward

struct Item {
  double tokens = 0.0;
  double tokens_squared = 0.0;
  Work work = {};
  double frames = 0.0;  ///< of its largest
  double need = 0.0;    ///< memory in budgets of a rank
  int least = 1;        ///< degree that holds it
};

/// The batch and the cluster as the bound sees them. Degrees go from 1 to ranks(), the number of ranks in service.
class Problem {
 public:
  Problem(const Batch& batch, const Cluster& cluster, const CostModel& cost)
      : cost_(cost), passes_{cost.forward, cost.backward}, sequence_step_s_(dhp::sequence_step_s(cost)) {
    for (const Rank rank : cluster.live_ranks()) speeds_.push_back(cluster.speed_of(rank));
    std::sort(speeds_.begin(), speeds_.end(), std::greater<>());
    for (const double speed : speeds_) speed_sums_.push_back(speed_sums_.back() + speed);
    // Beyond machines that exist, the walk over layouts would take longer than it is worth: transfers are free there.
    constexpr std::size_t kMostLayouts = std::size_t{1} << 20;
    if (speeds_.size() * index(cluster.ranks_per_node) <= kMostLayouts) transfers_ = least_transfers(cluster, cost);
    transfers_.resize(speeds_.size() + 1);
    constexpr int kNarrow = 8;  // a range is an eighth as wide as its first degree
    for (int first = 1; first <= ranks(); first = range_ends_.back()) {
      range_ends_.push_back(std::min(first + std::max(1, first / kNarrow), ranks() + 1));
    }
    add_items(batch, cluster, cost);
  }

  std::span<const Item> items() const { return items_; }
  int ranks() const { return static_cast<int>(speeds_.size()); }
  const PassCost& pass(int number) const { return passes_[index(number)]; }
  const LeastTransfer& transfer(int degree) const { return transfers_[index(degree)]; }
  std::span<const LeastTransfer> transfers() const { return transfers_; }
  /// Of ranges that all degrees are divided into, rising: the degrees behind their last.
  std::span<const int> range_ends() const { return range_ends_; }
  double slowest() const { return speeds_.back(); }
  double sequence_step_s() const { return sequence_step_s_; }
  double rank_task_s() const { return cost_.task_s + step_s(cost_); }  ///< a

  /// Least seconds of a task of this degree that holds the item.
  double alone_s(const Item& item, int degree) const {
    TaskWork work{1.0, item.tokens, item.tokens_squared, item.work};
    work.work.vision.frame_s = fullest_s(item, degree);
    return least_task_s(cost_, work, degree, speeds_[index(degree) - 1], transfer(degree));
  }

  /// z_i(d): rank-seconds that a group waits for the fullest share of the item's frames, whatever else is in the task.
  /// The item needs more than half of its memory.
  double frame_wait_s(const Item& item, double degree) const {
    const double wait_s = degree * fullest_s(item, degree) - item.work.vision.work_s;
    return wait_s > 0.0 ? std::max(0.0, wait_s - most_vision_s(degree * (1 + kNeedRounding) - item.need)) : 0.0;
  }

  /// The most rank-seconds, weighted by speed, that any number of ranks offers to sequences in `seconds`, if each rank
  /// of each task takes `rank_task` of them beforehand.
  double capacity_s(double seconds, double rank_task) const {
    const auto idle = std::lower_bound(speeds_.begin(), speeds_.end(), rank_task / seconds, std::greater<>());
    const int worth_it = static_cast<int>(idle - speeds_.begin());
    const int in_use = std::max({1, worth_it, static_cast<int>(std::min<double>(task_ranks_, ranks()))});
    return seconds * speed_sums_[index(in_use)] - rank_task * std::max<double>(in_use, task_ranks_);
  }

 private:
  /// phi_i(d): seconds of vision that some rank of the group has at least, whatever else is in the task. The item's
  /// largest frames in turns, unless there is a larger frame in the task: then that one.
  double fullest_s(const Item& item, double degree) const {
    const double frame_s = item.work.vision.frame_s;
    const double turns = std::ceil(item.frames / degree);
    return turns > 1.0 ? std::min(turns * frame_s, larger_frame_s(frame_s, degree * (1 + kNeedRounding) - item.need))
                       : frame_s;
  }

  /// The smallest frame larger than this one, of items that fit into so much memory; infinite if there is none. One of
  /// an item that does not fit may stand for it: the bound is lower then, and valid.
  double larger_frame_s(double frame_s, double memory) const {
    constexpr int kMostLooks = 64;
    const auto is_smaller = [](double size_s, const Frame& frame) { return size_s < frame.size_s; };
    auto larger = std::upper_bound(frames_.begin(), frames_.end(), frame_s, is_smaller);
    for (int looks = 0; larger != frames_.end(); ++larger) {
      if (larger->least_need <= memory || ++looks == kMostLooks) return larger->size_s;
    }
    return kInfinity;
  }

  /// R(y): vision that `memory`, in budgets of a rank, holds at most.
  double most_vision_s(double memory) const {
    const auto fits = [](double room, const Filling& filling) { return room < filling.need; };
    const auto end = std::upper_bound(fillings_.begin(), fillings_.end(), memory, fits);
    return end == fillings_.begin() ? 0.0 : std::min(memory * (end - 1)->rate_s, (end - 1)->sum_s);
  }

  void add_items(const Batch& batch, const Cluster& cluster, const CostModel& cost) {
    const double budget = activation_budget_bytes(cost, cluster);
    double need = 0.0;
    items_.reserve(batch.sequences.size());
    for (const Sequence& sequence : batch.sequences) {
      Item item;
      item.tokens = static_cast<double>(sequence.tokens);
      item.tokens_squared = item.tokens * item.tokens;
      item.work = work_of(cost, sequence);
      if (sequence.frame_patches > 0) {
        item.frames = std::floor(static_cast<double>(sequence.patches) / static_cast<double>(sequence.frame_patches));
      }
      if (budget > 0.0) item.need = sequence_bytes(cost, sequence) / budget;
      // What no group holds is left to other checks.
      item.least = std::clamp(min_degree(cost, cluster, sequence), 1, ranks());
      need += item.need;
      items_.push_back(item);
    }
    task_ranks_ = std::ceil(need * (1 - kNeedRounding));
    for (const Item& item : items_) {
      const double vision_s = item.work.vision.work_s;
      if (item.need > 0.0) fillings_.push_back({item.need, vision_s / item.need, vision_s});
      if (item.frames > 0.0) frames_.push_back({item.work.vision.frame_s, item.need});
    }
    std::sort(frames_.begin(), frames_.end(), [](const Frame& a, const Frame& b) {
      return a.size_s != b.size_s ? a.size_s < b.size_s : a.least_need < b.least_need;
    });
    const auto is_same = [](const Frame& a, const Frame& b) { return a.size_s == b.size_s; };
    frames_.erase(std::unique(frames_.begin(), frames_.end(), is_same), frames_.end());
    std::sort(fillings_.begin(), fillings_.end(), [](const Filling& a, const Filling& b) { return a.need < b.need; });
    for (std::size_t i = 1; i < fillings_.size(); ++i) {
      fillings_[i].rate_s = std::max(fillings_[i].rate_s, fillings_[i - 1].rate_s);
      fillings_[i].sum_s += fillings_[i - 1].sum_s;
    }
  }

  /// A size of frames, and the least memory of an item that has such.
  struct Frame {
    double size_s = 0.0;
    double least_need = 0.0;
  };

  /// Of sequences by growing need, each with those before it.
  struct Filling {
    double need = 0.0;
    double rate_s = 0.0;  ///< most vision for its memory
    double sum_s = 0.0;   ///< vision of all
  };

  const CostModel& cost_;
  std::array<PassCost, kPasses> passes_;
  double sequence_step_s_;
  std::vector<Item> items_;
  std::vector<Filling> fillings_;
  std::vector<Frame> frames_;             // of items' largest ones, by size
  double task_ranks_ = 0.0;               // M: sum of all tasks' degrees, at least
  std::vector<double> speeds_;            // of ranks in service, falling
  std::vector<double> speed_sums_ = {0};  // of the first k
  std::vector<LeastTransfer> transfers_;
  std::vector<int> range_ends_;
};

/// How the fixed cost of tasks is charged.
struct Sharing {
  bool by_rank = true;  ///< task_s + step apart, for every rank of every task; else all of it to sequences
  int parts = 0;        ///< to sequences 0: in proportion to memory; p: 1/p for each 1/(p+1) of memory they exceed
  bool frames = true;   ///< what needs more than half of a group's memory pays for ranks that wait for its frames
};

using Lambda = std::array<double, kPasses>;

/// pi_i(d): what an item is charged in a task of degree d.
class Charges {
 public:
  Charges(const Problem& problem, const Sharing& sharing, std::span<const Lambda> lambdas)
      : problem_(problem), parts_(sharing.parts), frames_(sharing.frames), rates_(index(problem.ranks()) + 1) {
    if (parts_ > 0) task_.assign(rates_.size(), 0.0);
    for (int degree = 1; degree <= problem.ranks(); ++degree) {
      const double d = degree;
      const LeastTransfer& least = problem.transfer(degree);
      Rates& rates = rates_[index(degree)];
      rates.constant = d * d * problem.sequence_step_s();
      double task = sharing.by_rank ? 0.0 : d * problem.rank_task_s();
      for (int p = 0; p < kPasses; ++p) {
        const double lambda = lambdas[index(degree)][index(p)];
        const PassCost& pass = problem.pass(p);
        rates.constant -= lambda * d * (d - 1) * pass.sequence_step_s;
        task += d * ((1 - lambda) * (d - 1) * pass.step_s + lambda * problem.slowest() * least.fixed_s);
        rates.by_token += lambda * problem.slowest() * least.per_byte_s * pass.ring_bytes_per_token;
        rates.by_square -= lambda * (d - 1) * pass.pair_s / (2 * d);
      }
      if (parts_ == 0) rates.by_need = task / d;
      if (parts_ > 0) task_[index(degree)] = task;
    }
    find_ranges();
  }

  /// The item's share of a task's fixed cost. All shares of a task that memory holds come to 1 at most.
  double share(const Item& item, int degree) const {
    if (parts_ == 0) return item.need / degree;
    constexpr double kExcess = 1e-9;  // a sum of needs may exceed the degree by so much
    const double exceeded = std::ceil((parts_ + 1) * item.need / degree * (1 - kExcess)) - 1;
    return std::clamp(exceeded / parts_, 0.0, 1.0);
  }

  /// Calls `visit` with degrees that hold the item, rising, and their charges: with all whose charge is below `limit`,
  /// which `visit` may lower. Ranges of degrees whose charges cannot be below it are passed over.
  template <typename Visit>
  void visit_below(const Item& item, const double& limit, const Visit& visit) const {
    const std::span<const int> ends = problem_.range_ends();
    const auto* const first = std::upper_bound(ends.data(), ends.data() + ends.size(), item.least);
    auto range = static_cast<std::size_t>(first - ends.data());
    for (int degree = item.least; range < ranges_.size() && linear(item, ranges_[range].from_here) < limit; ++range) {
      if (linear(item, ranges_[range].inside) < limit) {
        for (; degree < ends[range]; ++degree) {
          const double charge = at(item, degree);
          if (charge < limit) visit(degree, charge);
        }
      }
      degree = ends[range];
    }
  }

 private:
  /// What a charge grows by, apart from work, with the item's tokens, their square and its memory.
  struct Rates {
    double constant = 0.0;
    double by_token = 0.0;
    double by_square = 0.0;
    double by_need = 0.0;
  };
  struct Range {
    Rates inside;     ///< the least of each
    Rates from_here;  ///< of this range and all behind it
  };

  static double linear(const Item& item, const Rates& rates) {
    return item.work.all_s + rates.constant + item.tokens * rates.by_token + item.tokens_squared * rates.by_square +
           item.need * rates.by_need;
  }

  static Rates least_of(const Rates& a, const Rates& b) {
    return {std::min(a.constant, b.constant), std::min(a.by_token, b.by_token), std::min(a.by_square, b.by_square),
            std::min(a.by_need, b.by_need)};
  }

  double at(const Item& item, int degree) const {
    double charge = linear(item, rates_[index(degree)]);
    if (frames_ && degree < 2 * item.need * (1 - kNeedRounding)) charge += problem_.frame_wait_s(item, degree);
    if (parts_ > 0 && degree < (parts_ + 1) * item.need) charge += share(item, degree) * task_[index(degree)];
    return charge;
  }

  void find_ranges() {
    const std::span<const int> ends = problem_.range_ends();
    ranges_.resize(ends.size());
    int degree = 1;
    for (std::size_t range = 0; range < ends.size(); ++range) {
      Rates& inside = ranges_[range].inside;
      for (inside = rates_[index(degree)]; degree < ends[range]; ++degree) {
        inside = least_of(inside, rates_[index(degree)]);
      }
    }
    for (std::size_t range = ends.size(); range-- > 0;) {
      Range& here = ranges_[range];
      here.from_here = range + 1 < ends.size() ? least_of(here.inside, ranges_[range + 1].from_here) : here.inside;
    }
  }

  const Problem& problem_;
  int parts_;
  bool frames_;
  std::vector<Rates> rates_;  // by degree
  std::vector<double> task_;  // by degree: what is shared by parts of the fixed cost
  std::vector<Range> ranges_;
};

}  // namespace dhp
