// The planner `lockstep`: micro-batches, packing and degrees chosen together, by time, for the least sum of slowest
// tasks.
//
// Micro-batches are filled one after the other, each at the target time that uses the ranks best (fill). As
// soon as all that is left can run on single ranks, it is also tried to deal it to several micro-batches at once, level
// over all ranks (finish). The best plan of several ways to weigh targets wins. Then sets of its
// micro-batches, those with most idle time first, are filled anew, as long as that helps and effort lasts.
//
// In a pipeline the slowest micro-batch counts once more for every further stage, so plans are also made under ceilings
// on how long a micro-batch may take.
#include <algorithm>
#include <cmath>
#include <functional>
#include <set>
#include <utility>

#include "base/index.h"
#include "base/number_limits.h"
#include "plan/lockstep/fill.h"
#include "plan/lockstep/finish.h"
#include "plan/planners.h"
#include "plan/search/candidates.h"
#include "plan/search/lanes.h"

namespace dhp::plan {
namespace {

// Found by trial on bench/cases with build/release/bench/plan_quality; the results move little around these values.
constexpr std::int64_t kLooksPerEffort = 2000;  // its looks are shorter than those of `free`
constexpr std::int64_t kTicksOfFill = 500;      // of beginning a micro-batch

// How much more (or less) a micro-batch of the longest target counts than one of no length: long ones mean fewer fixed
// costs, short ones less to wait for.
constexpr double kFavours[] = {0.0, 0.05, -0.02, 0.2, -0.1, 0.1, -0.05, 0.4};

// Targets, as multiples of what the longest item takes on the fewest ranks that hold it ...
constexpr double kMultiples[] = {4.0, 3.0, 2.5, 2.0, 1.6, 1.3, 1.1, 1.0};
// ... and as even shares of all the work that is left, with some air.
constexpr int kMostShares = 5;
constexpr double kAir[] = {1.005, 1.02, 1.05};
constexpr double kDistinct = 0.985;  // closer targets give the same

// Where all targets of a micro-batch, and of those before it, would take a second or more, every fifth is tried, then
// those beside the best; where they would take five, every twenty-fifth, then every fifth.
constexpr std::int64_t kManyTicks = 100'000'000;
constexpr std::size_t kStride = 5;
constexpr std::int64_t kMostTicks = 500'000'000;

// Ceilings for a pipeline fall by a factor, until that was in vain some times; then those beside the best are tried.
constexpr double kLower = 0.88;
constexpr int kMostInVain = 8;
constexpr double kBeside[] = {1.06, 0.94, 1.03, 0.97};
constexpr double kCeilingFavours[] = {0.0, 0.4};
constexpr double kEarliest = 0.75;          // of a ceiling: what ends earlier only adds micro-batches
constexpr std::int64_t kCeilingTicks = 80;  // times those of all plans without a ceiling
constexpr std::size_t kImproved = 3;        // plans under ceilings that are filled anew, the best

constexpr std::size_t kReach[] = {20, 6};  // of sets of two and of three
constexpr double kShortest = 0.9;          // of its target: what a micro-batch that is filled anew is expected to take
constexpr double kBestUse = 0.997;         // of ranks in a micro-batch: what filling anew hopes for at most

class LockstepPlanner {
 public:
  LockstepPlanner(const Batch& batch, const Limits& limits, const PlanOptions& options)
      : options_(options),
        model_(limits),
        cell_(model_, 0, limits.ranks()),
        items_(sorted_items(batch, model_)),
        filler_(cell_, items_, options.no_idle_ranks) {}

  PlanResult plan(std::int64_t ticks) {
    for (const double favour : kFavours) {
      fill_all(favour);
      if (spent() >= ticks) break;
    }
    most_ticks_ = ticks + ticks * 3 / 4;
    if (options_.pipeline_stages > 1) {
      plan_under_ceilings(ticks);
    } else {
      improve_all();
    }
    for (std::size_t number = 0; options_.no_idle_ranks && number < best_.size(); ++number) {
      if (best_[number].idle_ranks > 0) return idle(number);
    }
    return to_plan();
  }

 private:
  double objective(const MicroBatches& micro_batches) const {
    double sum = 0.0;
    double idle = 0.0;
    for (const MicroBatch& one : micro_batches) {
      sum += one.seconds;
      idle += one.idle_ranks;
    }
    // Idle ranks that are forbidden weigh more than any time.
    if (options_.no_idle_ranks && idle > 0.0) sum *= 1e6 * (1.0 + idle);
    return sum + (options_.pipeline_stages - 1) * longest_s(micro_batches);
  }

  static double longest_s(const MicroBatches& micro_batches) {
    double most = 0.0;
    for (const MicroBatch& one : micro_batches) most = std::max(most, one.seconds);
    return most;
  }

  void offer(MicroBatches&& candidate) {
    const double value = objective(candidate);
    if (value >= best_value_) return;
    best_value_ = value;
    best_ = std::move(candidate);
  }

  /// Rank time that what is left takes at the very least.
  double work_left_s(LeftItems& left) const {
    double work_s = 0.0;
    for (int position = left.next(0); position < left.count(); position = left.next(position + 1)) {
      work_s += items_[index(position)].alone_s + model_.need(items_[index(position)]) * model_.pack_s();
    }
    return work_s;
  }

  /// Times to try for the next micro-batch, falling.
  std::vector<double> targets(LeftItems& left) {
    const SearchItem& longest = items_[index(left.next(0))];
    const double least_s = cell_.best_seconds(longest, longest.min_degree);
    std::vector<double> targets;
    for (const double multiple : kMultiples) targets.push_back(multiple * least_s);
    const double work_s = work_left_s(left);
    for (int share = 1; share <= kMostShares; ++share) {
      for (const double air : kAir) {
        const double target = work_s / cell_.total_speed() / share * air;
        if (target > least_s / 2 && target < 16 * least_s) targets.push_back(target);
      }
    }
    for (int degree = longest.min_degree + 1; degree <= std::min(longest.max_degree, cell_.widest()); ++degree) {
      if (!model_.limits().allows(degree)) continue;
      targets.push_back(cell_.best_seconds(longest, degree));
      ticks_ += kTicksOfTime;
    }
    if (std::isfinite(ceiling_s_)) {
      const double quickest = *std::min_element(targets.begin(), targets.end());
      std::erase_if(targets, [&](double target) { return target > ceiling_s_ || target < kEarliest * ceiling_s_; });
      targets.push_back(std::max(ceiling_s_, quickest));
    }
    std::sort(targets.begin(), targets.end(), std::greater<>());
    const auto alike = [](double longer, double shorter) { return shorter > longer * kDistinct; };
    targets.erase(std::unique(targets.begin(), targets.end(), alike), targets.end());
    return targets;
  }

  /// The micro-batch that makes most of its ranks. `ticks_before`: of the filler, before the first micro-batch.
  MicroBatch fill_best(LeftItems& left, double favour, std::int64_t ticks_before) {
    MicroBatch best;
    LeftItems best_left = left;
    double best_score = -kInfinity;
    std::size_t best_number = 0;
    const std::vector<double> tried = targets(left);
    const auto try_target = [&](std::size_t number) {
      LeftItems rest = left;
      MicroBatch candidate = filler_.fill(rest, tried[number]);
      const double use = candidate.work_s / (cell_.total_speed() * candidate.seconds);
      double score = use * (1.0 + favour * std::min(1.0, candidate.seconds / tried.front()));
      if (options_.no_idle_ranks) score -= candidate.idle_ranks;
      if (score <= best_score) return;
      best_score = score;
      best_number = number;
      best = std::move(candidate);
      best_left = std::move(rest);
    };
    const std::int64_t before = filler_.ticks();
    try_target(0);
    const std::int64_t all_ticks = before - ticks_before + (filler_.ticks() - before) * std::ssize(tried);
    std::size_t stride = 1;
    if (all_ticks > kManyTicks && !options_.no_idle_ranks)
      stride = all_ticks > kMostTicks ? kStride * kStride : kStride;
    for (std::size_t number = stride; number < tried.size(); number += stride) try_target(number);
    for (; stride > 1; stride /= kStride) {
      const std::size_t finer = stride / kStride;
      const std::size_t middle = best_number;
      for (std::size_t number = middle - std::min(middle, stride - finer);
           number < std::min(tried.size(), middle + stride); number += finer) {
        if (number != middle) try_target(number);
      }
    }
    left = std::move(best_left);
    return best;
  }

  struct Candidate {
    double value = 0.0;
    MicroBatches micro_batches = {};
  };
  Candidate taken() { return {std::exchange(best_value_, kInfinity), std::exchange(best_, {})}; }
  void resume(Candidate candidate) {
    best_value_ = candidate.value;
    best_ = std::move(candidate.micro_batches);
  }

  /// Makes plans under ever lower ceilings, then beside the best of them, and fills the best few anew.
  void plan_under_ceilings(std::int64_t ticks) {
    const std::int64_t most_ticks = spent() + kCeilingTicks * ticks;
    const double longest = longest_s(best_);
    std::vector<Candidate> candidates = {taken()};
    const auto try_ceiling = [&](double ceiling_s) {
      ceiling_s_ = ceiling_s;
      for (const double favour : kCeilingFavours) fill_all(favour);
      candidates.push_back(taken());
    };
    const auto by_value = [](const Candidate& a, const Candidate& b) { return a.value < b.value; };
    double best_value = candidates[0].value;
    double best_ceiling = longest;
    int in_vain = 0;
    for (double ceiling_s = longest * kLower; in_vain < kMostInVain && spent() < most_ticks; ceiling_s *= kLower) {
      try_ceiling(ceiling_s);
      ++in_vain;
      if (candidates.back().value >= best_value) continue;
      best_value = candidates.back().value;
      best_ceiling = ceiling_s;
      in_vain = 0;
    }
    for (const double factor : kBeside) try_ceiling(best_ceiling * factor);
    std::stable_sort(candidates.begin(), candidates.end(), by_value);
    candidates.resize(std::min(candidates.size(), kImproved));
    for (Candidate& candidate : candidates) {
      resume(std::move(candidate));
      ceiling_s_ = longest_s(best_);
      most_ticks_ = spent() + ticks / 2;
      improve_all();
      candidate = taken();
    }
    resume(std::move(*std::min_element(candidates.begin(), candidates.end(), by_value)));
  }

  void fill_all(double favour) {
    MicroBatches begun;
    LeftItems left(items_.size());
    Ceiling ceiling{.seconds = ceiling_s_};
    const std::int64_t ticks_before = filler_.ticks();
    while (!left.empty()) {
      for (MicroBatches& rest : finishes(cell_, items_, left, filler_, ceiling)) {
        MicroBatches whole = begun;
        for (MicroBatch& one : rest) whole.push_back(std::move(one));
        offer(std::move(whole));
      }
      begun.push_back(fill_best(left, favour, ticks_before));
      if (objective(begun) >= best_value_) return;
    }
    offer(std::move(begun));
  }

  /// Sets of 2 or 3 micro-batches no farther apart than kReach, by falling idle time over distance: neighbours hold
  /// items of like length.
  std::vector<std::vector<std::size_t>> sets(std::size_t size) {
    const std::size_t reach = kReach[size - 2];
    std::vector<double> idle_s;
    for (const MicroBatch& one : best_) idle_s.push_back(cell_.total_speed() * one.seconds - one.work_s);
    std::vector<std::pair<double, std::vector<std::size_t>>> weighed;
    const auto weigh = [&](std::vector<std::size_t>&& numbers) {
      double sum_s = 0.0;
      for (const std::size_t number : numbers) sum_s += idle_s[number];
      weighed.emplace_back(sum_s / static_cast<double>(numbers.back() - numbers.front()), std::move(numbers));
    };
    for (std::size_t i = 0; i < best_.size(); ++i) {
      for (std::size_t j = i + 1; j < std::min(best_.size(), i + reach + 1); ++j) {
        if (size == 2) weigh({i, j});
        for (std::size_t k = i + 1; size == 3 && k < j; ++k) weigh({i, k, j});
      }
    }
    ticks_ += kTicksOfTime * std::ssize(weighed);
    std::stable_sort(weighed.begin(), weighed.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
    std::vector<std::vector<std::size_t>> result;
    result.reserve(weighed.size());
    for (auto& [weight, numbers] : weighed) result.push_back(std::move(numbers));
    return result;
  }

  void improve_all() {
    for (const std::size_t together : {2, 3}) improve(together);
  }

  /// Fills sets of micro-batches anew until none gets shorter.
  void improve(std::size_t together) {
    std::set<std::vector<std::vector<std::int32_t>>> tried;  // by the items of each one's first group
    for (bool better = true; better && !tired();) {
      better = false;
      for (const std::vector<std::size_t>& numbers : sets(together)) {
        if (tired()) break;
        std::vector<std::vector<std::int32_t>> key;
        for (const std::size_t number : numbers) {
          if (!best_[number].groups.empty()) key.push_back(best_[number].groups.front().items);
        }
        if (key.size() > 1 && tried.insert(std::move(key)).second) better = refill(numbers) || better;
      }
      std::erase_if(best_, [](const MicroBatch& one) { return one.groups.empty(); });
    }
  }

  /// The items of some micro-batches in as many others, or fewer, that take less time together.
  bool refill(const std::vector<std::size_t>& numbers) {
    std::vector<bool> pooled(items_.size(), false);
    Refilled refilled;
    for (const std::size_t number : numbers) {
      refilled.seconds += best_[number].seconds;
      for (const LockGroup& group : best_[number].groups) {
        for (const std::int32_t item : group.items) pooled[index(item)] = true;
      }
    }
    LeftItems left(items_.size());
    for (int position = 0; position < left.count(); ++position) {
      if (!pooled[index(position)]) left.take(position);
    }
    ticks_ += left.count();
    MicroBatches begun;
    search(left, numbers.size(), 0.0, begun, refilled);
    if (refilled.micro_batches.empty()) return false;
    refilled.micro_batches.resize(numbers.size());
    MicroBatches candidate = best_;
    for (std::size_t i = 0; i < numbers.size(); ++i) candidate[numbers[i]] = std::move(refilled.micro_batches[i]);
    const double before = best_value_;
    offer(std::move(candidate));
    return best_value_ < before;
  }

  std::int64_t spent() const { return ticks_ + filler_.ticks(); }
  bool tired() const { return spent() >= most_ticks_; }

  struct Refilled {
    double seconds = 0.0;
    MicroBatches micro_batches = {};
  };

  /// All ways to fill at most `more` micro-batches, by target times, that may still beat the best.
  void search(LeftItems& left, std::size_t more, double begun_s, MicroBatches& begun, Refilled& best) {
    if (begun_s + work_left_s(left) / cell_.total_speed() / kBestUse >= best.seconds) return;
    if (left.empty()) {
      best = {.seconds = begun_s, .micro_batches = begun};
      return;
    }
    for (const double target : targets(left)) {
      if (tired()) return;
      // What ends long before its target gets another target too.
      if (more == 1 && begun_s + kShortest * target > best.seconds) continue;
      LeftItems rest = left;
      MicroBatch candidate = filler_.fill(rest, target);
      ticks_ += kTicksOfFill;
      if (more == 1 && !rest.empty()) return;
      const double seconds = begun_s + candidate.seconds;
      begun.push_back(std::move(candidate));
      search(rest, more - 1, seconds, begun, best);
      begun.pop_back();
    }
  }

  Infeasible idle(std::size_t number) const {
    return {.reason = "no idle ranks: the sequences of micro-batch " + std::to_string(number) + " keep only " +
                      std::to_string(cell_.ranks() - best_[number].idle_ranks) + " of " +
                      std::to_string(cell_.ranks()) + " ranks busy within the limits on degrees and shards",
            .sequence = {}};
  }

  Plan to_plan() const {
    Plan plan;
    plan.schedule = Schedule::lockstep;
    for (std::size_t number = 0; number < best_.size(); ++number) {
      for (const LockGroup& group : best_[number].groups) {
        Task& task = plan.tasks.emplace_back();
        task.id = static_cast<int>(plan.tasks.size()) - 1;
        task.micro_batch = static_cast<int>(number);
        task.exchange = group.transfer.exchange;
        for (const int rank : group.ranks) task.ranks.push_back(model_.limits().live()[index(rank)]);
        std::sort(task.ranks.begin(), task.ranks.end());
        for (const std::int32_t item : group.items) {
          task.sequences.push_back(items_[index(item)].id);
        }
      }
    }
    return plan;
  }

  const PlanOptions& options_;
  SearchModel model_;
  FreeCell cell_;
  std::vector<SearchItem> items_;
  MicroBatchFiller filler_;
  MicroBatches best_;
  double best_value_ = kInfinity;
  double ceiling_s_ = kInfinity;  ///< on the time of a micro-batch, where that can be
  std::int64_t ticks_ = 0;        // beside the filler's
  std::int64_t most_ticks_ = 0;
};

}  // namespace

PlanResult plan_lockstep_shortest(const Batch& batch, const Limits& limits, const PlanOptions& options) {
  return LockstepPlanner(batch, limits, options).plan(options.effort * kLooksPerEffort);
}

PlanResult plan_lockstep(const Batch& in_any_order, const Limits& limits, const PlanOptions& options,
                         std::optional<int> /*argument*/) {
  constexpr std::int64_t kLanePart = 80;  // of the effort, one part for the lanes of a width; more gains nothing
  PlanResult shortest = plan_lockstep_shortest(in_any_order, limits, options);
  Plan* plan = std::get_if<Plan>(&shortest);
  // In a pipeline the slowest micro-batch counts too; and what is quick stays so.
  if (plan == nullptr || options.pipeline_stages > 1 || options.effort <= kEffortFast) return shortest;
  plan->ranks = limits.cluster().ranks();
  const Batch batch = by_id(in_any_order);
  Candidates candidates(batch, limits, options);
  candidates.offer(std::move(*plan));
  const LanePlanner planner = [&](const Batch& on_lanes, const Limits& lanes, PlanOptions lane_options) {
    lane_options.effort = std::max<std::int64_t>(1, options.effort / kLanePart);
    PlanResult result = plan_lockstep_shortest(on_lanes, lanes, lane_options);
    Plan* made = std::get_if<Plan>(&result);
    return made == nullptr ? std::nullopt : std::optional(std::move(*made));
  };
  for (const int width : lane_widths(limits, options)) {
    if (2 * width < limits.cluster().ranks_per_node) continue;  // narrower ones gain next to nothing
    candidates.offer(plan_lanes(batch, limits, options, width, planner));
  }
  return std::move(candidates.best().plan);
}

}  // namespace dhp::plan
