// The tighter lower bound: the search for charges. docs/bounds.md states and proves it, in the names used here.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "base/index.h"
#include "base/number_limits.h"
#include "cost/bound/charges.h"
#include "cost/bound/share_bound.h"
#include "cost/bound/tighter_bound.h"

namespace dhp {
namespace {

constexpr double kPrecision = 1e-6;  // relative, of T

/// One way to charge for tasks.
struct Choice {
  Sharing sharing;
  std::vector<Lambda> lambdas;  ///< by degree
};

/// Raises a bound by one choice of charges after another.
class Search {
 public:
  /// From a bound that is known already: fewer sequences are too long for their cheapest degree then.
  Search(const Problem& problem, double known_s) : Search(problem, problem.items(), 1.0, known_s) {}

  /// Of some of the items, each for `weight` of them.
  Search(const Problem& problem, std::span<const Item> items, double weight, double known_s)
      : problem_(problem), items_(items), weight_(weight), degrees_(items.size(), 1) {
    least_alone_s_.reserve(items.size());
    for (const Item& item : items) least_alone_s_.push_back(problem.alone_s(item, item.least));
    find_longest();
    bound_s_ = std::max(known_s, longest_s_);
  }

  double seconds() const { return bound_s_; }
  double longest_s() const { return longest_s_; }
  std::size_t longest() const { return longest_; }

  /// Of what raised the bound most; nothing where nothing did.
  const std::optional<Choice>& best() const { return best_; }

  /// Raises the bound as far as these charges do; false if they do not.
  bool raise(const Sharing& sharing, const std::vector<Lambda>& lambdas) {
    return raise(Charges(problem_, sharing, lambdas), sharing, lambdas);
  }

  /// Raises by lambdas that follow the slope of the sum of all charges, which is concave in them.
  void ascend(const Sharing& sharing, std::vector<Lambda>& lambdas, int rounds) {
    double step = 1.0;
    for (int round = 0; round < rounds; ++round) {
      const Charges charges(problem_, sharing, lambdas);
      if (!raise(charges, sharing, lambdas) && round > 0) step *= 0.7;
      total_at(bound_s_);
      std::vector<Lambda> slopes(lambdas.size(), Lambda{});
      for (std::size_t i = 0; i < degrees_.size(); ++i) {
        if (degrees_[i] < 2) continue;
        const Item& item = items_[i];
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
    for (std::size_t i = 0; i < degrees_.size(); ++i) {
      const Item& item = items_[i];
      const int first = least_short_enough(i);
      for (int degree = std::max(2, first); degree <= std::min(2 * first, problem_.ranks()); ++degree) {
        add_slope(item, degree, item.need / degree, lambdas);
      }
    }
    for (Lambda& lambda : lambdas) {
      for (double& value : lambda) value = value > 0.0 ? 1.0 : 0.0;
    }
    return lambdas;
  }

 private:
  bool raise(const Charges& charges, const Sharing& sharing, const std::vector<Lambda>& lambdas) {
    settle(charges);
    const double rank_task = sharing.by_rank ? problem_.rank_task_s() : 0.0;
    const auto holds = [&](double seconds) { return total_at(seconds) <= problem_.capacity_s(seconds, rank_task); };
    if (!raise_until(holds)) return false;
    best_ = {sharing, lambdas};
    return true;
  }

  /// A degree that is cheaper than all that are short enough at the bound.
  struct Cheaper {
    int degree = 1;
    double seconds = 0.0;
    double charge = 0.0;
  };

  /// An item whose degree depends on T: the least charge at the bound, and degrees that a longer T may allow.
  struct Open {
    std::size_t item = 0;
    int degree = 1;
    double charge = 0.0;
    std::size_t begin = 0;  ///< in cheaper_
    std::size_t end = 0;
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
    for (std::size_t i = 0; i < degrees_.size(); ++i) {
      const Item& item = items_[i];
      if (least_alone_s_[i] <= longest_s_) continue;
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

  int least_short_enough(std::size_t i) const {
    const Item& item = items_[i];
    int degree = item.least;
    while (degree < problem_.ranks() && alone_s(i, degree) > bound_s_) ++degree;
    return degree;
  }

  double alone_s(std::size_t i, int degree) const {
    const Item& item = items_[i];
    return degree == item.least ? least_alone_s_[i] : problem_.alone_s(item, degree);
  }

  /// Sums the items that are short enough at their cheapest degree, which stay there whatever T is; lists the others.
  void settle(const Charges& charges) {
    settled_ = 0.0;
    open_.clear();
    cheaper_.clear();
    for (std::size_t i = 0; i < degrees_.size(); ++i) {
      Open item{.item = i, .charge = kInfinity, .begin = cheaper_.size()};
      charges.visit_below(items_[i], item.charge, [&](int degree, double charge) {
        const double seconds = alone_s(i, degree);
        if (seconds > bound_s_) {
          cheaper_.push_back({degree, seconds, charge});
        } else {
          item.degree = degree;
          item.charge = charge;
        }
      });
      const auto is_dearer = [&](const Cheaper& one) { return one.charge >= item.charge; };
      const auto begin = cheaper_.begin() + static_cast<std::ptrdiff_t>(item.begin);
      cheaper_.erase(std::remove_if(begin, cheaper_.end(), is_dearer), cheaper_.end());
      item.end = cheaper_.size();
      degrees_[i] = item.degree;
      if (item.begin == item.end) {
        settled_ += item.charge;
      } else {
        open_.push_back(item);
      }
    }
  }

  /// The sum over items of the least charge at a degree short enough for T = `seconds`, which is not below the bound.
  double total_at(double seconds) {
    double total = settled_;
    for (const Open& open : open_) {
      double least = open.charge;
      degrees_[open.item] = open.degree;
      for (std::size_t k = open.begin; k < open.end; ++k) {
        const Cheaper& one = cheaper_[k];
        if (one.seconds > seconds || one.charge >= least) continue;
        least = one.charge;
        degrees_[open.item] = one.degree;
      }
      total += least;
    }
    return total * weight_;
  }

  /// How the item's charge at this degree changes with each lambda.
  void add_slope(const Item& item, int degree, double share, std::vector<Lambda>& slopes) const {
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
  std::span<const Item> items_;
  double weight_;
  double bound_s_ = 0.0;
  std::optional<Choice> best_;
  double longest_s_ = 0.0;
  std::size_t longest_ = 0;
  std::vector<double> least_alone_s_;  // by item: at its least degree
  double settled_ = 0.0;
  std::vector<Open> open_;
  std::vector<Cheaper> cheaper_;
  std::vector<int> degrees_;  // by item: of its least charge
};

void try_all(Search& search) {
  std::vector<Lambda> lambdas = search.guess();
  // Which charges win depends on the batch; measured on the shared cases and on instances of a few sequences, which
  // need the last ones.
  search.ascend({.by_rank = true, .parts = 0}, lambdas, 12);
  search.ascend({.by_rank = true, .parts = 1}, lambdas, 6);
  for (const double lambda : {0.0, 1.0}) {
    lambdas.assign(lambdas.size(), Lambda{lambda, lambda});
    for (const Sharing& sharing : {Sharing{true, 0}, Sharing{true, 1}, Sharing{false, 1}, Sharing{false, 2}}) {
      search.raise(sharing, lambdas);
    }
  }
}

/// The best choice for a sample of the items, which holds their mean work: any choice is valid for all of them.
std::optional<Choice> best_of_sample(const Problem& problem, std::size_t most, double known_s) {
  const std::span<const Item> items = problem.items();
  std::vector<Item> sample;
  double sample_s = 0.0;
  for (std::size_t i = 0; i < most; ++i) {
    sample.push_back(items[i * items.size() / most]);
    sample_s += sample.back().work.all_s;
  }
  double all_s = 0.0;
  for (const Item& item : items) all_s += item.work.all_s;
  if (!(sample_s > 0.0)) return std::nullopt;
  Search search(problem, sample, all_s / sample_s, known_s);
  try_all(search);
  return search.best();
}

/// Raises the bound as far as this cluster's does.
void raise(LowerBound& bound, const Batch& batch, const Cluster& cluster, const CostModel& cost, std::size_t few) {
  constexpr std::size_t kOfFew = 4;
  const Problem problem(batch, cluster, cost);
  Search search(problem, std::max(bound.seconds, share_bound_s(batch, cluster, cost, problem.transfers())));
  if (batch.sequences.size() <= few) {
    try_all(search);
  } else {
    search.raise({}, std::vector<Lambda>(index(problem.ranks()) + 1, Lambda{}));
    const std::optional<Choice> best =
        best_of_sample(problem, std::max<std::size_t>(1, few / kOfFew), search.seconds());
    if (best) search.raise(best->sharing, best->lambdas);
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

LowerBound without_residuals(const Batch& batch, const Cluster& cluster, const CostModel& cost, std::size_t few) {
  LowerBound bound{.seconds = bound_without_residuals_s(batch, cluster, cost)};
  if (batch.sequences.empty() || cluster.live_ranks().empty()) return bound;
  raise(bound, batch, cluster, cost, few);
  if (cluster.rank_speed.empty()) return bound;
  // Transfers weigh as much as the slowest rank's speed lets them, so one slow rank hides those of all the others.
  const Cluster quick = quickened(cluster);
  if (quick != cluster) raise(bound, batch, quick, cost, few);
  return bound;
}

}  // namespace

LowerBound tighter_lower_bound(const Batch& batch, const Cluster& cluster, const CostModel& cost, std::size_t few) {
  LowerBound bound = without_residuals(batch, cluster, cost, few);
  bound.seconds *= least_residual_factor(cost);
  return bound;
}

LowerBound tighter_lower_bound(const Batch& batch, const Cluster& cluster, const CostModel& cost) {
  constexpr std::size_t kFew = 4095;
  return tighter_lower_bound(batch, cluster, cost, kFew);
}

}  // namespace dhp
