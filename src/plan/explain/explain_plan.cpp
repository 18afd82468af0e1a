#include "dhp/explain.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "base/index.h"
#include "base/number_limits.h"
#include "dhp/bound.h"
#include "plan/explain/start_cause.h"

namespace dhp {

using namespace plan;

namespace {

constexpr std::size_t kMostWaits = 3;

/// A cause other than work is named if the bound would be so much lower without it.
constexpr double kTelling = 0.05;

Cluster without_transfers(Cluster cluster) {
  for (Link* link : {&cluster.intra_node, &cluster.inter_node}) {
    link->bandwidth_bytes_per_s = kInfinity;
    link->latency_s = 0.0;
  }
  return cluster;
}

Cluster without_memory_limit(Cluster cluster) {
  cluster.memory_bytes = kInfinity;
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

std::string cause_text(const Plan& plan, const StartCause& cause) {
  switch (cause.kind) {
    case StartCause::Kind::step:
      break;
    case StartCause::Kind::rank:
      return "waits for " + number("rank", cause.rank) + ", busy with " + number("task", cause.task);
    case StartCause::Kind::barrier:
      return "waits at the barrier for " + number("rank", cause.rank) + ", busy with " + number("task", cause.task) +
             " of " + number("micro-batch", plan.tasks[index(cause.task)].micro_batch);
  }
  return "waits";
}

/// The waits of every rank in service, in plan order.
std::vector<Wait> find_waits(const Plan& plan, const Timeline& timeline, const Cluster& cluster) {
  std::vector<Wait> waits;
  std::vector<double> ready_s(index(plan.ranks), 0.0);
  const auto add = [&](Rank rank, double until_s, int task, const std::string& cause) {
    const double from_s = ready_s[index(rank)];
    if (until_s > from_s) waits.push_back({rank, until_s - from_s, from_s, task, cause});
  };
  const std::vector<StartCause> causes = start_causes(plan, timeline);
  for (const Task& task : plan.tasks) {
    const std::string cause = cause_text(plan, causes[index(task.id)]);
    for (const Rank rank : task.ranks) {
      add(rank, timeline.start_s[index(task.id)], task.id, cause);
      ready_s[index(rank)] = timeline.end_s[index(task.id)];
    }
  }
  const int last = last_task(timeline);
  if (last < 0) return waits;
  for (const Rank rank : cluster.live_ranks()) {
    add(rank, timeline.makespan_s, -1,
        "has no task left; the step ends with " + number("task", last) + " on " +
            number("rank", plan.tasks[index(last)].ranks.front()));
  }
  return waits;
}

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
  require_shape(plan, cluster);
  validate(batch, "batch");
  validate(cost, "cost");
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
  result.idle_share = timeline.idle_share(static_cast<int>(cluster.live_ranks().size()));
  std::map<int, int> degrees;
  for (const Task& task : plan.tasks) ++degrees[task.degree()];
  result.degrees.assign(degrees.begin(), degrees.end());
  result.longest_waits = longest(find_waits(plan, timeline, cluster));
  return result;
}

}  // namespace dhp
