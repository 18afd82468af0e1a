// The tighter lower bound. docs/bounds.md states and proves it, in the names used here.
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <span>
#include <vector>

#include "base/index.h"
#include "base/number_limits.h"
#include "cost/bound/least_transfer.h"
#include "cost/bound/share_bound.h"
#include "cost/bound/tighter_bound.h"
#include "cost/terms.h"

namespace dhp {
namespace {

constexpr double kPrecision = 1e-6;  // relative, of T
constexpr int kPasses = 2;           // forward and backward

struct Item {
  double tokens = 0.0;
  double tokens_squared = 0.0;
  Work work = {};
  double need = 0.0;  ///< memory in budgets of a rank
  int least = 1;      ///< degree that holds it
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
    add_items(batch, cluster, cost);
  }

  std::span<const Item> items() const { return items_; }
  int ranks() const { return static_cast<int>(speeds_.size()); }
  const PassCost& pass(int number) const { return passes_[index(number)]; }
  const LeastTransfer& transfer(int degree) const { return transfers_[index(degree)]; }
  std::span<const LeastTransfer> transfers() const { return transfers_; }
  double slowest() const { return speeds_.back(); }
  double sequence_step_s() const { return sequence_step_s_; }
  double rank_task_s() const { return cost_.task_s + step_s(cost_); }  ///< a

  /// Least seconds of a task of this degree that holds the item.
  double alone_s(const Item& item, int degree) const {
    return least_task_s(cost_, {1.0, item.tokens, item.tokens_squared, item.work}, degree, speeds_[index(degree) - 1],
                        transfer(degree));
  }

  /// z_i(d): rank-seconds that a group waits for the item's largest frame, whatever else is in the task. The item needs
  /// more than half of its memory.
  double frame_wait_s(const Item& item, double degree) const {
    const VisionSeconds& vision = item.work.vision;
    const double wait_s = degree * vision.frame_s - vision.work_s;
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
    }
    std::sort(fillings_.begin(), fillings_.end(), [](const Filling& a, const Filling& b) { return a.need < b.need; });
    for (std::size_t i = 1; i < fillings_.size(); ++i) {
      fillings_[i].rate_s = std::max(fillings_[i].rate_s, fillings_[i - 1].rate_s);
      fillings_[i].sum_s += fillings_[i - 1].sum_s;
    }
  }

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
  double task_ranks_ = 0.0;               // M: sum of all tasks' degrees, at least
  std::vector<double> speeds_;            // of ranks in service, falling
  std::vector<double> speed_sums_ = {0};  // of the first k
  std::vector<LeastTransfer> transfers_;
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
      : problem_(problem), parts_(sharing.parts), frames_(sharing.frames) {
    for (std::vector<double>* column : {&constant_, &by_token_, &by_square_, &by_need_, &task_}) {
      column->assign(index(problem.ranks()) + 1, 0.0);
    }
    for (int degree = 1; degree <= problem.ranks(); ++degree) {
      const double d = degree;
      const LeastTransfer& least = problem.transfer(degree);
      double constant = d * d * problem.sequence_step_s();
      double task = sharing.by_rank ? 0.0 : d * problem.rank_task_s();
      for (int p = 0; p < kPasses; ++p) {
        const double lambda = lambdas[index(degree)][index(p)];
        const PassCost& pass = problem.pass(p);
        constant -= lambda * d * (d - 1) * pass.sequence_step_s;
        task += d * ((1 - lambda) * (d - 1) * pass.step_s + lambda * problem.slowest() * least.fixed_s);
        by_token_[index(degree)] += lambda * problem.slowest() * least.per_byte_s * pass.ring_bytes_per_token;
        by_square_[index(degree)] -= lambda * (d - 1) * pass.pair_s / (2 * d);
      }
      constant_[index(degree)] = constant;
      task_[index(degree)] = task;
      by_need_[index(degree)] = parts_ == 0 ? task / d : 0.0;
    }
  }

  /// The item's share of a task's fixed cost. All shares of a task that memory holds come to 1 at most.
  double share(const Item& item, int degree) const {
    if (parts_ == 0) return item.need / degree;
    constexpr double kExcess = 1e-9;  // a sum of needs may exceed the degree by so much
    const double exceeded = std::ceil((parts_ + 1) * item.need / degree * (1 - kExcess)) - 1;
    return std::clamp(exceeded / parts_, 0.0, 1.0);
  }

  /// Charges at degrees item.least, item.least + 1, … up to all ranks, into `row`.
  void fill(const Item& item, std::span<double> row) const {
    const double* constant = constant_.data() + item.least;
    const double* by_token = by_token_.data() + item.least;
    const double* by_square = by_square_.data() + item.least;
    const double* by_need = by_need_.data() + item.least;
    for (std::size_t k = 0; k < row.size(); ++k) {
      row[k] = item.work.all_s + constant[k] + item.tokens * by_token[k] + item.tokens_squared * by_square[k] +
               item.need * by_need[k];
    }
    for (std::size_t k = 0; frames_ && k < row.size(); ++k) {
      const double degree = item.least + static_cast<double>(k);
      if (degree >= 2 * item.need * (1 - kNeedRounding)) break;
      row[k] += problem_.frame_wait_s(item, degree);
    }
    if (parts_ == 0) return;
    for (std::size_t k = 0; k < row.size(); ++k) {
      const int degree = item.least + static_cast<int>(k);
      if (degree >= (parts_ + 1) * item.need) break;
      row[k] += share(item, degree) * task_[index(degree)];
    }
  }

 private:
  const Problem& problem_;
  int parts_;
  bool frames_;
  std::vector<double> constant_;
  std::vector<double> by_token_;
  std::vector<double> by_square_;
  std::vector<double> by_need_;
  std::vector<double> task_;  // what is shared of the fixed cost
};

/// Raises a bound by one choice of charges after another.
class Search {
 public:
  /// From a bound that is known already: fewer sequences are too long for their cheapest degree then.
  Search(const Problem& problem, double known_s) : problem_(problem), alone_(problem.items().size()) {
    find_longest();
    bound_s_ = std::max(known_s, longest_s_);
    for (std::size_t i = 0; i < alone_.size(); ++i) alone_[i].push_back(alone_s(i, 0));
    degrees_.assign(alone_.size(), 1);
  }

  double seconds() const { return bound_s_; }
  double longest_s() const { return longest_s_; }
  std::size_t longest() const { return longest_; }

  /// Raises the bound as far as these charges do; false if they do not.
  bool raise(const Charges& charges, const Sharing& sharing) {
    settle(charges);
    const double rank_task = sharing.by_rank ? problem_.rank_task_s() : 0.0;
    return raise_until([&](double seconds) { return total_at(seconds) <= problem_.capacity_s(seconds, rank_task); });
  }

  /// Raises by lambdas that follow the slope of the sum of all charges, which is concave in them.
  void ascend(const Sharing& sharing, std::vector<Lambda>& lambdas, int rounds) {
    double step = 1.0;
    for (int round = 0; round < rounds; ++round) {
      const Charges charges(problem_, sharing, lambdas);
      if (!raise(charges, sharing) && round > 0) step *= 0.7;
      total_at(bound_s_);
      std::vector<Lambda> slopes(lambdas.size(), Lambda{});
      for (std::size_t i = 0; i < alone_.size(); ++i) {
        const Item& item = problem_.items()[i];
        add_slope(item, degrees_[i], charges.share(item, degrees_[i]), slopes);
      }
      for (std::size_t degree = 2; degree < lambdas.size(); ++degree) {
        for (std::size_t p = 0; p < kPasses; ++p) {
          const double slope = slopes[degree][p];
          const double move = slope > 0.0 ? step : slope < 0.0 ? -step : 0.0;
          lambdas[degree][p] = std::clamp(lambdas[degree][p] + move, 0.0, 1.0);
        }
      }
    }
  }

  /// 1 where the transfers of the sequences that are likely to run at a degree, from the least that is short enough to
  /// twice that, last longer together than what hides them; else 0.
  std::vector<Lambda> guess() {
    std::vector<Lambda> lambdas(index(problem_.ranks()) + 1, Lambda{});
    for (std::size_t i = 0; i < alone_.size(); ++i) {
      const Item& item = problem_.items()[i];
      const int first = least_short_enough(item, bound_s_);
      for (int degree = std::max(2, first); degree <= std::min(2 * first, problem_.ranks()); ++degree) {
        add_slope(item, degree, item.need / degree, lambdas);
      }
    }
    for (Lambda& lambda : lambdas) {
      for (double& value : lambda) value = value > 0.0 ? 1.0 : 0.0;
    }
    return lambdas;
  }

  /// The bound for lambda = 0, shares by need and no charge for frames. Charges then grow with the degree, so an item
  /// has the least that is short enough, which takes no walk over all.
  void raise_simply() {
    const std::vector<Lambda> zero(index(problem_.ranks()) + 1, Lambda{});
    const Sharing sharing{.frames = false};
    const Charges charges(problem_, sharing, zero);
    const auto charge_of = [&](Item item, double seconds) {
      item.least = least_short_enough(item, seconds);
      double charge = 0.0;
      charges.fill(item, {&charge, 1});
      return charge;
    };
    double settled = 0.0;
    std::vector<Item> open;  // those that a longer T lets use fewer ranks
    for (const Item& item : problem_.items()) {
      if (problem_.alone_s(item, item.least) > bound_s_) {
        open.push_back(item);
      } else {
        settled += charge_of(item, bound_s_);
      }
    }
    raise_until([&](double seconds) {
      double total = settled;
      for (const Item& item : open) total += charge_of(item, seconds);
      return total <= problem_.capacity_s(seconds, problem_.rank_task_s());
    });
  }

 private:
  /// An item whose degree depends on T: its charges, by degree from its least on.
  struct Open {
    std::size_t item = 0;
    std::vector<double> charges = {};
  };

  /// Raises the bound to the smallest T that `holds`, from below; false if the bound holds already.
  template <typename Holds>
  bool raise_until(const Holds& holds) {
    if (holds(bound_s_)) return false;
    double low = bound_s_;
    double high = 2 * low;
    while (!holds(high)) {
      low = high;
      high = 2 * low;
      if (!std::isfinite(high)) return false;  // numbers so large that the sums are none
    }
    while (high - low > kPrecision * high) {
      const double middle = (low + high) / 2;
      (holds(middle) ? high : low) = middle;
    }
    bound_s_ = low;
    return true;
  }

  /// (i) every sequence has a degree at which it is short enough.
  void find_longest() {
    int witness = 1;  // the longest so far is shortest here: one comparison tells that most others are shorter
    for (std::size_t i = 0; i < alone_.size(); ++i) {
      const Item& item = problem_.items()[i];
      if (witness >= item.least && problem_.alone_s(item, witness) <= longest_s_) continue;
      double shortest = kInfinity;
      int best = 1;
      for (int degree = item.least; degree <= problem_.ranks(); ++degree) {
        const double seconds = problem_.alone_s(item, degree);
        if (seconds >= shortest) continue;
        shortest = seconds;
        best = degree;
      }
      if (shortest <= longest_s_) continue;
      longest_s_ = shortest;
      longest_ = i;
      witness = best;
    }
  }

  int least_short_enough(const Item& item, double seconds) const {
    int degree = item.least;
    while (degree < problem_.ranks() && problem_.alone_s(item, degree) > seconds) ++degree;
    return degree;
  }

  /// Of item i at its least degree plus `more`.
  double alone_s(std::size_t i, std::size_t more) const {
    if (more < alone_[i].size()) return alone_[i][more];
    const Item& item = problem_.items()[i];
    return problem_.alone_s(item, item.least + static_cast<int>(more));
  }

  void fill_alone(std::size_t i) {
    const Item& item = problem_.items()[i];
    const auto size = index(problem_.ranks() - item.least) + 1;
    alone_[i].reserve(size);
    for (std::size_t more = alone_[i].size(); more < size; ++more) alone_[i].push_back(alone_s(i, more));
  }

  /// Sums the items that are short enough at their cheapest degree, which stay there whatever T is; lists the others.
  void settle(const Charges& charges) {
    settled_ = 0.0;
    open_.clear();
    std::vector<double> buffer(index(problem_.ranks()));
    for (std::size_t i = 0; i < alone_.size(); ++i) {
      const Item& item = problem_.items()[i];
      const std::span row(buffer.data(), index(problem_.ranks() - item.least) + 1);
      charges.fill(item, row);
      const std::size_t cheapest = least_of(row);
      if (alone_s(i, cheapest) <= bound_s_) {
        settled_ += row[cheapest];
        degrees_[i] = item.least + static_cast<int>(cheapest);
      } else {
        fill_alone(i);
        open_.push_back({i, {row.begin(), row.end()}});
      }
    }
  }

  static std::size_t least_of(std::span<const double> row) {
    std::size_t best = 0;
    for (std::size_t k = 1; k < row.size(); ++k) {
      if (row[k] < row[best]) best = k;
    }
    return best;
  }

  /// The sum over items of the least charge at a degree short enough for T = `seconds`, which is not below the bound.
  double total_at(double seconds) {
    double total = settled_;
    for (const Open& open : open_) {
      const std::span<const double> durations = alone_[open.item];
      double least = kInfinity;
      for (std::size_t k = 0; k < durations.size(); ++k) {
        if (durations[k] > seconds || open.charges[k] >= least) continue;
        least = open.charges[k];
        degrees_[open.item] = problem_.items()[open.item].least + static_cast<int>(k);
      }
      total += least;
    }
    return total;
  }

  /// How the item's charge at this degree changes with each lambda.
  void add_slope(const Item& item, int degree, double share, std::vector<Lambda>& slopes) const {
    if (degree < 2) return;
    const double d = degree;
    const LeastTransfer& least = problem_.transfer(degree);
    for (int p = 0; p < kPasses; ++p) {
      const PassCost& pass = problem_.pass(p);
      slopes[index(degree)][index(p)] +=
          problem_.slowest() * least.per_byte_s * pass.ring_bytes_per_token * item.tokens -
          (d - 1) * pass.pair_s / (2 * d) * item.tokens_squared - d * (d - 1) * pass.sequence_step_s +
          share * d * (problem_.slowest() * least.fixed_s - (d - 1) * pass.step_s);
    }
  }

  const Problem& problem_;
  double bound_s_ = 0.0;
  double longest_s_ = 0.0;
  std::size_t longest_ = 0;
  std::vector<std::vector<double>> alone_;  // by item, then degree from its least on; as far as needed so far
  double settled_ = 0.0;
  std::vector<Open> open_;
  std::vector<int> degrees_;  // by item: of its least charge
};

void search_all(const Problem& problem, Search& search) {
  std::vector<Lambda> lambdas = search.guess();
  // Which charges win depends on the batch; measured on the shared cases and on instances of a few sequences, which
  // need the last ones.
  search.ascend({.by_rank = true, .parts = 0}, lambdas, 12);
  search.ascend({.by_rank = true, .parts = 1}, lambdas, 6);
  for (const double lambda : {0.0, 1.0}) {
    lambdas.assign(lambdas.size(), Lambda{lambda, lambda});
    for (const Sharing& sharing : {Sharing{true, 0}, Sharing{true, 1}, Sharing{false, 1}, Sharing{false, 2}}) {
      search.raise(Charges(problem, sharing, lambdas), sharing);
    }
  }
}

/// Raises the bound as far as this cluster's does.
void raise(LowerBound& bound, const Batch& batch, const Cluster& cluster, const CostModel& cost,
           std::size_t most_entries) {
  const Problem problem(batch, cluster, cost);
  Search search(problem, std::max(bound.seconds, share_bound_s(batch, cluster, cost, problem.transfers())));
  if (batch.sequences.size() * index(problem.ranks()) > most_entries) {
    search.raise_simply();
  } else {
    search_all(problem, search);
  }
  // Sums and products are rounded, plans' times too: what is stated stays below by more than that.
  const double rounding = 8 * static_cast<double>(batch.sequences.size() + 64) * std::numeric_limits<double>::epsilon();
  const double seconds = search.seconds() * (1 - rounding);
  if (seconds > bound.seconds) bound = {.seconds = seconds};
  if (search.longest_s() * (1 + rounding) >= bound.seconds) bound.sequence = search.longest();
}

/// Every rank in service as quick as the quickest, on which no plan takes longer.
Cluster quickened(Cluster cluster) {
  const double quickest = *std::max_element(cluster.rank_speed.begin(), cluster.rank_speed.end());
  for (double& speed : cluster.rank_speed) speed = speed > 0.0 ? quickest : 0.0;
  return cluster;
}

}  // namespace

LowerBound tighter_lower_bound(const Batch& batch, const Cluster& cluster, const CostModel& cost,
                               std::size_t most_entries) {
  LowerBound bound{.seconds = simple_lower_bound_s(batch, cluster, cost)};
  if (batch.sequences.empty() || cluster.live_ranks().empty()) return bound;
  raise(bound, batch, cluster, cost, most_entries);
  if (cluster.rank_speed.empty()) return bound;
  // Transfers weigh as much as the slowest rank's speed lets them, so one slow rank hides those of all the others.
  const Cluster quick = quickened(cluster);
  if (quick != cluster) raise(bound, batch, quick, cost, most_entries);
  return bound;
}

LowerBound tighter_lower_bound(const Batch& batch, const Cluster& cluster, const CostModel& cost) {
  return tighter_lower_bound(batch, cluster, cost, kMostBoundEntries);
}

}  // namespace dhp
