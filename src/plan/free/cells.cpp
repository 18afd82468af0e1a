#include "plan/free/cells.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace dhp::plan {
namespace {

/// Positions at which a cell may begin, and the number of positions at the end.
std::vector<int> borders(const Limits& limits) {
  if (limits.confined()) return limits.block_begins();
  const bool whole_nodes = limits.cluster().ranks_per_node <= kCellRanks;
  std::vector<int> result;
  for (int position = 0; position < limits.ranks(); ++position) {
    const auto node_of = [&](int at) { return limits.cluster().node_of(limits.live()[static_cast<std::size_t>(at)]); };
    if (position == 0 || !whole_nodes || node_of(position) != node_of(position - 1)) result.push_back(position);
  }
  result.push_back(limits.ranks());
  return result;
}

}  // namespace

std::vector<CellRange> cut_cells(const Limits& limits, int widest_degree, double wide_ranks) {
  const int ranks = limits.ranks();
  if (ranks <= kCellRanks * 3 / 2) return {{0, ranks}};
  const std::vector<int> allowed = borders(limits);
  std::vector<CellRange> cells;
  // A cell from `begin` to the first border at or after `wanted`; returns that border.
  const auto cut = [&](int begin, int wanted) {
    const int end = *std::lower_bound(allowed.begin(), allowed.end(), std::min(wanted, ranks));
    cells.push_back({begin, end - begin});
    return end;
  };
  int begin = 0;
  if (widest_degree > kCellRanks) {
    begin = cut(0, std::max(widest_degree, static_cast<int>(std::min<double>(std::ceil(wide_ranks), ranks))));
  }
  int left = (ranks - begin + kCellRanks / 2) / kCellRanks;
  while (begin < ranks) {
    begin = cut(begin, left > 1 ? begin + (ranks - begin) / left : ranks);
    --left;
  }
  return cells;
}

std::vector<int> deal_items(std::span<const double> work_s, std::span<const int> degrees,
                            std::span<const FreeCell> cells) {
  std::vector<double> load(cells.size(), 0.0);  // seconds
  std::vector<int> heap(cells.size());          // the least loaded first
  std::iota(heap.begin(), heap.end(), 0);
  const auto less = [&](int a, int b) {
    const double load_a = load[static_cast<std::size_t>(a)];
    const double load_b = load[static_cast<std::size_t>(b)];
    return load_a != load_b ? load_a < load_b : a < b;
  };
  const auto sift_down = [&](std::size_t hole) {
    const int cell = heap[hole];
    while (true) {
      std::size_t child = 2 * hole + 1;
      if (child >= heap.size()) break;
      if (child + 1 < heap.size() && less(heap[child + 1], heap[child])) ++child;
      if (!less(heap[child], cell)) break;
      heap[hole] = heap[child];
      hole = child;
    }
    heap[hole] = cell;
  };
  std::vector<int> cell_of(work_s.size());
  for (std::size_t i = 0; i < work_s.size(); ++i) {
    std::size_t where = 0;
    if (degrees[i] > cells[static_cast<std::size_t>(heap[0])].widest()) {
      // Rare: the least loaded of the cells that are wide enough.
      where = heap.size();
      for (std::size_t k = 0; k < heap.size(); ++k) {
        const bool wide = degrees[i] <= cells[static_cast<std::size_t>(heap[k])].widest();
        if (wide && (where == heap.size() || less(heap[k], heap[where]))) where = k;
      }
    }
    const auto cell = static_cast<std::size_t>(heap[where]);
    cell_of[i] = heap[where];
    load[cell] += work_s[i] / cells[cell].total_speed();
    sift_down(where);
  }
  return cell_of;
}

}  // namespace dhp::plan
