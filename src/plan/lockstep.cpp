// The planner `lockstep`: micro-batches, packing and degrees chosen together, by time, for the least sum of slowest
// tasks.
#include <algorithm>
#include <limits>

#include "plan/free_fill.h"
#include "plan/lockstep_fill.h"
#include "plan/planners.h"

namespace dhp {
namespace {

using MicroBatches = std::vector<LockMicroBatch>;

class LockstepPlanner {
 public:
  LockstepPlanner(const Batch& batch, const Limits& limits, const PlanOptions& options)
      : batch_(batch),
        options_(options),
        model_(limits),
        cell_(model_, 0, limits.ranks()),
        items_(sorted_items(batch, model_)),
        filler_(cell_, items_, options.no_idle_ranks) {}

  Plan plan() {
    for (const double bias : {0.0, 0.05, -0.02}) fill_all(bias);
    return to_plan(best_);
  }

 private:
  double objective(const MicroBatches& micro_batches) const {
    double sum = 0.0;
    double most = 0.0;
    for (const LockMicroBatch& one : micro_batches) {
      sum += one.seconds;
      most = std::max(most, one.seconds);
    }
    return sum + (options_.pipeline_stages - 1) * most;
  }

  std::vector<double> targets(LeftItems& left) const {
    const FreeItem& longest = items_[static_cast<std::size_t>(left.next(0))];
    std::vector<double> targets;
    const double alone = cell_.best_seconds(longest, longest.min_degree);
    for (const double times : {4.0, 3.0, 2.5, 2.0, 1.6, 1.3, 1.1}) targets.push_back(alone * times);
    double area = 0.0;
    for (int p = left.next(0); p < left.count(); p = left.next(p + 1)) {
      const FreeItem& item = items_[static_cast<std::size_t>(p)];
      area += item.alone_s + model_.need(item) * model_.pack_s();
    }
    for (int k = 1; k <= 5; ++k)
      for (const double slack : {1.005, 1.02, 1.05}) {
        const double t = area / cell_.total_speed() / k * slack;
        if (t > 0.5 * alone && t < 16 * alone) targets.push_back(t);
      }
    double last = std::numeric_limits<double>::infinity();
    for (int degree = longest.min_degree; degree <= std::min(longest.max_degree, cell_.widest()); ++degree) {
      if (!model_.limits().allows(degree)) continue;
      const double seconds = cell_.best_seconds(longest, degree);
      if (seconds > last * 0.95) continue;
      last = seconds;
      targets.push_back(seconds);
    }
    return targets;
  }

  void offer(MicroBatches&& candidate) {
    const double seconds = objective(candidate);
    if (seconds >= best_s_) return;
    best_s_ = seconds;
    best_ = std::move(candidate);
  }

  /// All that is left in `count` micro-batches of single ranks.
  bool finish_alone(LeftItems& left, int count, MicroBatches& out) {
    const auto at = [](int value) { return static_cast<std::size_t>(value); };
    Lanes bins;
    for (int k = 0; k < count; ++k)
      bins.speed.insert(bins.speed.end(), cell_.lanes().speed.begin(), cell_.lanes().speed.end());
    bins.uniform = cell_.uniform();
    bins.total_speed = cell_.total_speed() * count;
    AloneFiller filler(model_, bins, items_, true);
    std::vector<std::int32_t> alone;
    for (int p = left.next(0); p < left.count(); p = left.next(p + 1)) alone.push_back(p);
    const std::vector<double> ready(at(bins.count()), 0.0);
    if (filler.fill(alone, ready, {}) == std::numeric_limits<double>::infinity()) return false;
    filler.level(400, 0.0);
    std::vector<int> order(at(bins.count()));
    for (int b = 0; b < bins.count(); ++b) order[at(b)] = b;
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return filler.end_s()[at(a)] > filler.end_s()[at(b)]; });
    out.resize(at(count));
    std::vector<int> used(at(cell_.ranks()), 0);
    int next = 0;
    for (const int bin : order) {
      if (filler.tail(bin).empty()) continue;
      const int rank = cell_.uniform() ? next++ % cell_.ranks() : bin % cell_.ranks();
      LockGroup group;
      group.ranks = {rank};
      group.load = items_[at(filler.tail(bin)[0])];
      for (std::size_t i = 1; i < filler.tail(bin).size(); ++i) group.load.add(items_[at(filler.tail(bin)[i])]);
      group.items.assign(filler.tail(bin).begin(), filler.tail(bin).end());
      filler_.settle(group);
      out[at(used[at(rank)]++)].groups.push_back(std::move(group));
    }
    while (!out.empty() && out.back().groups.empty()) out.pop_back();
    for (LockMicroBatch& one : out) filler_.complete(one);
    return true;
  }

  void try_finishes(const MicroBatches& begun, LeftItems& left) {
    double need = 0.0, area = 0.0;
    for (int p = left.next(0); p < left.count(); p = left.next(p + 1)) {
      const FreeItem& item = items_[static_cast<std::size_t>(p)];
      if (item.min_degree > 1) return;
      need += model_.need(item);
      area += item.alone_s;
    }
    if (objective(begun) + area / cell_.total_speed() >= best_s_) return;
    const int least = static_cast<int>(need / cell_.ranks()) + 1;
    for (int count = least; count <= least + 2; ++count) {
      MicroBatches rest;
      if (!finish_alone(left, count, rest)) continue;
      MicroBatches candidate = begun;
      for (LockMicroBatch& one : rest) candidate.push_back(std::move(one));
      offer(std::move(candidate));
    }
  }

  void fill_all(double bias) {
    MicroBatches all;
    LeftItems left(items_.size());
    while (!left.empty()) {
      try_finishes(all, left);
      LockMicroBatch best;
      LeftItems best_left = left;
      double best_score = -1.0;
      const std::vector<double> tried = targets(left);
      for (const double target : tried) {
        LeftItems trial = left;
        LockMicroBatch candidate = filler_.fill(trial, target);
        const double efficiency = candidate.work_s / (cell_.total_speed() * candidate.seconds);
        const double score = efficiency * (1.0 + bias * std::min(1.0, candidate.seconds / tried.front()));
        if (score <= best_score) continue;
        best_score = score;
        best = std::move(candidate);
        best_left = std::move(trial);
      }
      left = std::move(best_left);
      all.push_back(std::move(best));
    }
    offer(std::move(all));
  }

  Plan to_plan(const MicroBatches& micro_batches) const {
    Plan plan;
    plan.schedule = Schedule::lockstep;
    const auto at = [](int value) { return static_cast<std::size_t>(value); };
    for (std::size_t number = 0; number < micro_batches.size(); ++number) {
      for (const LockGroup& group : micro_batches[number].groups) {
        Task& task = plan.tasks.emplace_back();
        task.id = static_cast<int>(plan.tasks.size()) - 1;
        task.micro_batch = static_cast<int>(number);
        task.exchange = group.transfer.exchange;
        for (const int rank : group.ranks) task.ranks.push_back(model_.limits().live()[at(rank)]);
        std::sort(task.ranks.begin(), task.ranks.end());
        for (const std::int32_t item : group.items) {
          task.sequences.push_back(batch_.sequences[at(items_[at(item)].place)].id);
        }
      }
    }
    return plan;
  }

  const Batch& batch_;
  const PlanOptions& options_;
  FreeModel model_;
  FreeCell cell_;
  std::vector<FreeItem> items_;
  MicroBatchFiller filler_;
  MicroBatches best_;
  double best_s_ = std::numeric_limits<double>::infinity();
};

}  // namespace

PlanResult plan_lockstep(const Batch& batch, const Limits& limits, const PlanOptions& options,
                         std::optional<int> /*argument*/) {
  return LockstepPlanner(batch, limits, options).plan();
}

}  // namespace dhp
