#pragma once

#include <span>
#include <vector>

#include "plan/search/search_model.h"

namespace dhp::plan {

/// Consecutive positions of Limits::live() that are planned together.
struct CellRange {
  int first_position = 0;
  int ranks = 0;
};

/// Cuts a cluster that is too large to plan in one piece into cells of about `kCellRanks` ranks, at borders of nodes
/// (of blocks where groups are confined to them). The first cell is larger where sequences want more ranks than that:
/// `widest_degree` is the largest degree wanted, `wide_ranks` the ranks that all sequences wanting more than a cell
/// keep busy. One cell holds everything up to 1.5 kCellRanks.
std::vector<CellRange> cut_cells(const Limits& limits, int widest_degree, double wide_ranks);

inline constexpr int kCellRanks = 128;

/// Deals items (by falling alone_s) to cells so that all have about the same work for their speed: the cell of each
/// item. `work_s` is the rank time of each item, `degrees` what each asks of its cell's widest degree.
std::vector<int> deal_items(std::span<const double> work_s, std::span<const int> degrees,
                            std::span<const FreeCell> cells);

}  // namespace dhp::plan
