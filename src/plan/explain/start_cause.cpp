#include "plan/explain/start_cause.h"
#include "base/index.h"

#include <algorithm>

namespace dhp::plan {
namespace {}  // namespace

std::vector<StartCause> start_causes(const Plan& plan, const Timeline& timeline) {
  std::vector<StartCause> causes;
  std::vector<int> last(index(plan.ranks), -1);  // by rank: its latest task, -1 before any
  int latest = -1;                               // of all tasks so far the first that ends last
  int barrier = -1;                              // the task that the latest barrier waited for
  int micro_batch = plan.tasks.empty() ? 0 : plan.tasks.front().micro_batch;
  for (const Task& task : plan.tasks) {
    if (plan.schedule != Schedule::free && task.micro_batch != micro_batch) barrier = latest;
    micro_batch = task.micro_batch;
    const double start_s = timeline.start_s[index(task.id)];
    StartCause cause;
    if (barrier >= 0) cause = {StartCause::Kind::barrier, plan.tasks[index(barrier)].ranks.front(), barrier};
    for (const Rank rank : task.ranks) {
      const int before = last[index(rank)];
      if (before < 0 || timeline.end_s[index(before)] < start_s) continue;
      if (barrier >= 0 && timeline.end_s[index(before)] <= timeline.end_s[index(barrier)]) continue;
      cause = {StartCause::Kind::rank, rank, before};
      break;
    }
    causes.push_back(cause);
    for (const Rank rank : task.ranks) last[index(rank)] = task.id;
    if (latest < 0 || timeline.end_s[index(task.id)] > timeline.end_s[index(latest)]) latest = task.id;
  }
  return causes;
}

int last_task(const Timeline& timeline) {
  const auto last = std::max_element(timeline.end_s.begin(), timeline.end_s.end());
  return last == timeline.end_s.end() ? -1 : static_cast<int>(last - timeline.end_s.begin());
}

}  // namespace dhp::plan
