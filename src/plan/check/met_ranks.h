#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <utility>
#include <vector>

#include "dhp/plan.h"

namespace dhp {

/// How many others share a task with each rank. `slot_of` numbers the ranks of all tasks from 0 to `slots` - 1.
template <typename SlotOf>
std::vector<std::ptrdiff_t> count_met_ranks(const Plan& plan, std::size_t slots, const SlotOf& slot_of) {
  std::vector<std::size_t> begin(slots + 1, 0);  // of a rank's tasks in `tasks`
  for (const Task& task : plan.tasks) {
    for (const Rank rank : task.ranks) ++begin[slot_of(rank) + 1];
  }
  std::partial_sum(begin.begin(), begin.end(), begin.begin());
  std::vector<std::size_t> tasks(begin.back());
  std::vector<std::size_t> end(begin.begin(), begin.end() - 1);
  for (std::size_t i = 0; i < plan.tasks.size(); ++i) {
    for (const Rank rank : plan.tasks[i].ranks) tasks[end[slot_of(rank)]++] = i;
  }
  std::vector<std::ptrdiff_t> met(slots, 0);
  std::vector<std::size_t> met_by(slots, slots);  // the last rank that met this one
  const auto tasks_begin = [&](std::size_t slot) { return tasks.begin() + static_cast<std::ptrdiff_t>(begin[slot]); };
  for (std::size_t slot = 0; slot < slots; ++slot) {
    // Neighbours that are in the same tasks meet as many: a wide group is walked once, not once per rank.
    if (slot > 0 && std::equal(tasks_begin(slot), tasks_begin(slot + 1), tasks_begin(slot - 1), tasks_begin(slot))) {
      met[slot] = met[slot - 1];
      continue;
    }
    met_by[slot] = slot;
    for (std::size_t at = begin[slot]; at < end[slot]; ++at) {
      for (const Rank rank : plan.tasks[tasks[at]].ranks) {
        if (std::exchange(met_by[slot_of(rank)], slot) != slot) ++met[slot];
      }
    }
  }
  return met;
}

/// Tasks by micro-batch, in which they mostly stand already.
inline std::vector<std::size_t> tasks_by_micro_batch(const Plan& plan) {
  std::vector<std::size_t> order(plan.tasks.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto earlier = [&](std::size_t a, std::size_t b) {
    return plan.tasks[a].micro_batch < plan.tasks[b].micro_batch;
  };
  if (!std::is_sorted(order.begin(), order.end(), earlier)) std::stable_sort(order.begin(), order.end(), earlier);
  return order;
}

}  // namespace dhp
