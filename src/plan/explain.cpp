#include "dhp/explain.h"

#include <algorithm>
#include <limits>
#include <map>
#include <tuple>

#include "dhp/bound.h"

namespace dhp {
namespace {

constexpr std::size_t kMostWaits = 3;

/// A cause other than work is named if the bound would be so much lower without it.
constexpr double kTelling = 0.05;

Cluster without_transfers(Cluster cluster) {
  for (Link* link : {&cluster.intra_node, &cluster.inter_node}) {
    link->bandwidth_bytes_per_s = std::numeric_limits<double>::infinity();
    link->latency_s = 0.0;
  }
  return cluster;
}

Cluster without_memory_limit(Cluster cluster) {
  cluster.memory_bytes = std::numeric_limits<double>::infinity();
  return cluster;
}

/// What the bound is made of, found by leaving transfers out, then the limit of memory.
std::string limits(const Batch& batch, const Cluster& cluster, const CostModel& cost, const LowerBound& bound) {
  if (batch.sequences.empty()) return "nothing: the batch is empty";
  std::string whose = std::to_string(batch.sequences.size()) + " sequences";
  if (batch.sequences.size() == 1) whose = "1 sequence";
  std::string text = "total work of " + whose;
  if (bound.sequence) {
    const Sequence& sequence = batch.sequences[*bound.sequence];
    text = whose = "sequence " + std::to_string(sequence.id) + " (" + std::to_string(sequence.tokens) + " tokens)";
  }
  double least_s = bound.seconds * (1 - kTelling);
  const auto name_if_telling = [&](const char* what, const Cluster& without) {
    const double seconds = tighter_lower_bound_s(batch, without, cost);
    if (seconds >= least_s) return;
    least_s = seconds;
    text = what + whose;
  };
  name_if_telling("transfers of ", without_transfers(cluster));
  name_if_telling("memory of ", without_memory_limit(cluster));
  return text;
}

std::string number(const char* what, long value) { return std::string(what) + ' ' + std::to_string(value); }

/// Walks a timeline in plan order and collects the waits of every rank.
class WaitFinder {
 public:
  WaitFinder(const Plan& plan, const Timeline& timeline)
      : plan_(plan), timeline_(timeline), last_(static_cast<std::size_t>(plan.ranks), -1) {}

  std::vector<Wait> find() {
    for (const Task& task : plan_.tasks) {
      enter_micro_batch(task.micro_batch);
      const double start_s = timeline_.start_s[index(task.id)];
      const std::string cause = cause_of_start(task, start_s);
      for (const Rank rank : task.ranks) add(rank, start_s, task.id, cause);
      for (const Rank rank : task.ranks) last_[index(rank)] = task.id;
    }
    const int last_task = last_to_end();
    for (Rank rank = 0; rank < plan_.ranks && last_task >= 0; ++rank) {
      add(rank, timeline_.makespan_s, -1,
          "has no task left; the step ends with " + number("task", last_task) + " on " +
              number("rank", plan_.tasks[index(last_task)].ranks.front()));
    }
    return std::move(waits_);
  }

 private:
  static std::size_t index(int value) { return static_cast<std::size_t>(value); }

  double ready_s(Rank rank) const {
    const int task = last_[index(rank)];
    return task < 0 ? 0.0 : timeline_.end_s[index(task)];
  }

  /// The task with the latest end so far, the first of equals; -1 before any.
  int last_to_end() const {
    int latest = -1;
    for (const int task : last_) {
      if (task < 0) continue;
      const double end_s = timeline_.end_s[index(task)];
      if (latest < 0 || std::tuple(-end_s, task) < std::tuple(-timeline_.end_s[index(latest)], latest)) latest = task;
    }
    return latest;
  }

  void enter_micro_batch(int micro_batch) {
    if (micro_batch == micro_batch_) return;
    micro_batch_ = micro_batch;
    barrier_task_ = plan_.schedule == Schedule::free ? -1 : last_to_end();
  }

  std::string cause_of_start(const Task& task, double start_s) const {
    for (const Rank rank : task.ranks) {
      const bool since_barrier = barrier_task_ < 0 || ready_s(rank) > timeline_.end_s[index(barrier_task_)];
      if (last_[index(rank)] >= 0 && ready_s(rank) >= start_s && since_barrier) {
        return "waits for " + number("rank", rank) + ", busy with " + number("task", last_[index(rank)]);
      }
    }
    if (barrier_task_ < 0) return "waits";
    const Task& slowest = plan_.tasks[index(barrier_task_)];
    return "waits at the barrier for " + number("rank", slowest.ranks.front()) + ", busy with " +
           number("task", barrier_task_) + " of " + number("micro-batch", slowest.micro_batch);
  }

  void add(Rank rank, double until_s, int task, const std::string& cause) {
    const double seconds = until_s - ready_s(rank);
    if (seconds > 0.0) waits_.push_back({rank, seconds, ready_s(rank), task, cause});
  }

  const Plan& plan_;
  const Timeline& timeline_;
  std::vector<int> last_;  // by rank: its latest task, -1 before any
  std::vector<Wait> waits_;
  int micro_batch_ = -1;
  int barrier_task_ = -1;
};

/// Ranks of one group wait alike: only the lowest stands for them.
std::vector<Wait> longest(std::vector<Wait> waits) {
  std::sort(waits.begin(), waits.end(), [](const Wait& a, const Wait& b) {
    return std::tuple(-a.seconds, a.from_s, a.task, a.rank) < std::tuple(-b.seconds, b.from_s, b.task, b.rank);
  });
  const auto alike = [](const Wait& a, const Wait& b) {
    return a.seconds == b.seconds && a.from_s == b.from_s && a.task == b.task;
  };
  waits.erase(std::unique(waits.begin(), waits.end(), alike), waits.end());
  if (waits.size() > kMostWaits) waits.resize(kMostWaits);
  return waits;
}

}  // namespace

Explanation explain_plan(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost) {
  const Timeline timeline = replay(plan, predict_task_seconds(plan, batch, cluster, cost));
  Explanation result;
  result.makespan_s = timeline.makespan_s;
  result.limited_by = "all_to_all, for which no bound is known";
  if (!uses_all_to_all(plan)) {
    const LowerBound bound = tighter_lower_bound(batch, cluster, cost);
    result.lower_bound_s = bound.seconds;
    result.limited_by = limits(batch, cluster, cost, bound);
  }
  result.gap = result.lower_bound_s > 0.0 ? result.makespan_s / result.lower_bound_s - 1.0 : 0.0;
  result.idle_share = timeline.idle_share();
  std::map<int, int> degrees;
  for (const Task& task : plan.tasks) ++degrees[task.degree()];
  result.degrees.assign(degrees.begin(), degrees.end());
  result.longest_waits = longest(WaitFinder(plan, timeline).find());
  return result;
}

}  // namespace dhp
