#include "cost/bound/share_bound.h"
#include "base/number_limits.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace dhp {
namespace {

constexpr double kRounding = 1e-12;     // of a share
constexpr std::size_t kCells = 1024;    // that what a rank has to run is counted in; shares are rounded up to them
constexpr double kMostSequences = 4;    // a rank: with more, whole sequences hardly differ from any amount of work
constexpr double kMostTasks = 100'000;  // kinds of them, by sequences and degree

/// No longer, and with no more vision, than any sequence of the batch.
Sequence smallest_of(const Batch& batch) {
  Sequence smallest = batch.sequences.front();
  for (const Sequence& sequence : batch.sequences) {
    smallest.tokens = std::min(smallest.tokens, sequence.tokens);
    smallest.patches = std::min(smallest.patches, sequence.patches);
    smallest.frame_patches = std::min(smallest.frame_patches, sequence.frame_patches);
  }
  return smallest;
}

TaskWork work_of_equal(const CostModel& cost, const Sequence& sequence, double count) {
  const auto tokens = static_cast<double>(sequence.tokens);
  TaskWork work{.sequences = count,
                .tokens = count * tokens,
                .tokens_squared = count * tokens * tokens,
                .work = work_of(cost, sequence)};
  work.work.all_s *= count;
  work.work.vision.work_s *= count;
  return work;
}

/// By cells of its share: the least seconds of a task.
std::vector<double> task_times(const Batch& batch, const Cluster& cluster, const CostModel& cost,
                               std::span<const LeastTransfer> transfers, double goal) {
  const Sequence smallest = smallest_of(batch);
  const double need = sequence_bytes(cost, smallest) / activation_budget_bytes(cost, cluster);
  const double speed =
      cluster.rank_speed.empty() ? 1.0 : *std::max_element(cluster.rank_speed.begin(), cluster.rank_speed.end());
  std::vector<double> seconds(kCells + 1, kInfinity);
  for (std::size_t degree = 1; degree < transfers.size(); ++degree) {
    const auto d = static_cast<double>(degree);
    for (std::size_t count = 1; count <= batch.sequences.size(); ++count) {
      const auto k = static_cast<double>(count);
      if (k * need > d * (1 + kNeedRounding)) break;
      const double cells = std::ceil(k / d / goal * kCells * (1 - kRounding));
      const auto cell = std::min(kCells, static_cast<std::size_t>(cells));
      const TaskWork work = work_of_equal(cost, smallest, k);
      const double task_s = least_task_s(cost, work, static_cast<int>(degree), speed, transfers[degree]);
      seconds[cell] = std::min(seconds[cell], task_s);
      if (cell == kCells) break;
    }
  }
  return seconds;
}

}  // namespace

double share_bound_s(const Batch& batch, const Cluster& cluster, const CostModel& cost,
                     std::span<const LeastTransfer> transfers) {
  const auto ranks = static_cast<double>(transfers.size()) - 1;
  if (batch.sequences.empty() || ranks < 1 || !(activation_budget_bytes(cost, cluster) > 0.0)) return 0.0;
  const double goal = static_cast<double>(batch.sequences.size()) / ranks;
  if (goal > kMostSequences || ranks * (ranks * goal + 1) > kMostTasks) return 0.0;
  const std::vector<double> task_s = task_times(batch, cluster, cost, transfers, goal);
  std::vector<std::size_t> worth_it;  // no task of a larger share is as quick
  double quickest = kInfinity;
  for (std::size_t cell = kCells; cell > 0; --cell) {
    if (task_s[cell] < quickest) worth_it.push_back(cell);
    quickest = std::min(quickest, task_s[cell]);
  }
  std::vector<double> least_s(kCells + 1, 0.0);  // of tasks of so much together
  for (std::size_t done = 1; done <= kCells; ++done) {
    least_s[done] = kInfinity;
    for (const std::size_t cell : worth_it) {
      least_s[done] = std::min(least_s[done], task_s[cell] + least_s[done - std::min(done, cell)]);
    }
  }
  return std::isfinite(least_s[kCells]) ? least_s[kCells] : 0.0;
}

}  // namespace dhp
