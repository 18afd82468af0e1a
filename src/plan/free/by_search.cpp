#include "plan/free/by_search.h"

#include <algorithm>

#include "plan/free/cells.h"
#include "plan/free/search.h"

namespace dhp::plan {
namespace {

class FreePlanner {
 public:
  FreePlanner(const Batch& batch, const Limits& limits)
      : batch_(batch), model_(limits), bound_s_(simple_lower_bound_s(batch, limits.cluster(), limits.cost())) {}

  /// Of the last plan, by the planner's own arithmetic.
  double makespan_s() const {
    double last = 0.0;
    for (const CellSearch& search : searches_) last = std::max(last, search.makespan_s());
    return last;
  }
  double bound_s() const { return bound_s_; }

  Plan plan(std::int64_t ticks) {
    make_cells();
    if (searches_.size() == 1) {
      searches_[0].search(ticks);
    } else {
      search_cells(ticks);
    }
    Plan plan;
    plan.schedule = Schedule::free;
    plan.tasks.reserve(batch_.sequences.size());
    for (CellSearch& search : searches_) search.append_to(plan.tasks);
    for (std::size_t i = 0; i < plan.tasks.size(); ++i) plan.tasks[i].id = static_cast<int>(i);
    return plan;
  }

 private:
  void make_cells() {
    std::vector<SearchItem> items = sorted_items(batch_, model_);
    const Limits& limits = model_.limits();
    const FreeCell whole(model_, 0, limits.ranks());
    std::vector<int> degrees;
    std::vector<double> work_s;
    int widest = 1;
    double wide_s = 0.0;
    for (const SearchItem& item : items) {
      int degree = item.min_degree;
      double seconds = whole.best_seconds(item, degree);
      for (int next = degree + 1; next <= std::min(item.max_degree, whole.widest()) && seconds > bound_s_; ++next) {
        if (!limits.allows(next)) continue;
        const double at_next = whole.best_seconds(item, next);
        if (at_next >= seconds) continue;
        seconds = at_next;
        degree = next;
      }
      degrees.push_back(degree);
      work_s.push_back(degree == 1 ? item.alone_s + model_.need(item) * model_.pack_s() : degree * seconds);
      widest = std::max(widest, degree);
      if (degree > kCellRanks) wide_s += degree * seconds;
    }
    const std::vector<CellRange> ranges = cut_cells(limits, widest, bound_s_ > 0.0 ? wide_s / bound_s_ : 0.0);
    if (ranges.size() == 1) {
      cells_.push_back(whole);
    } else {
      for (const CellRange& range : ranges) cells_.emplace_back(model_, range.first_position, range.ranks);
    }
    const std::vector<int> cell_of = deal_items(work_s, degrees, cells_);
    std::vector<std::vector<SearchItem>> parts(cells_.size());
    for (auto& part : parts) part.reserve(items.size() / cells_.size() * 5 / 4 + 1);
    for (std::size_t i = 0; i < items.size(); ++i) parts[static_cast<std::size_t>(cell_of[i])].push_back(items[i]);
    searches_.reserve(cells_.size());
    for (std::size_t c = 0; c < cells_.size(); ++c) searches_.emplace_back(cells_[c], std::move(parts[c]), bound_s_);
  }

  /// Cells are alike: what serves one best is tried first on the others. What is left of the ticks goes to the cell
  /// that ends last.
  void search_cells(std::int64_t ticks_of_one) {
    constexpr std::int64_t kShare = 4;      // of the ticks for the first look
    constexpr double kSloppy = 1.001;       // times the first cell: level enough for the others
    constexpr double kStandsOut = 1.005;    // times the first cell: worth half more than the ticks granted
    constexpr std::int64_t kCellShare = 8;  // of the ticks of a small cluster, one part for every cell
    const std::int64_t ticks = ticks_of_one + ticks_of_one * std::ssize(searches_) / kCellShare;
    searches_[0].search(ticks_of_one / kShare);
    const int kind = searches_[0].best_kind();
    std::int64_t used = searches_[0].ticks();
    const double enough_s = searches_[0].makespan_s() * kSloppy;
    for (CellSearch& search : searches_) {
      if (&search == &searches_[0]) continue;
      search.try_kind(kind, enough_s);
      used += search.ticks();
    }
    const std::int64_t first_used = used;
    while (true) {
      CellSearch& last =
          *std::max_element(searches_.begin(), searches_.end(),
                            [](const CellSearch& a, const CellSearch& b) { return a.makespan_s() < b.makespan_s(); });
      const bool stands_out = last.makespan_s() > kStandsOut * enough_s;
      if (last.finished() || used >= (stands_out ? std::max(ticks, first_used * 3 / 2) : ticks)) return;
      const std::int64_t before = last.ticks();
      last.search(1);
      used += last.ticks() - before;
    }
  }

  const Batch& batch_;
  SearchModel model_;
  double bound_s_;
  std::vector<FreeCell> cells_;
  std::vector<CellSearch> searches_;
};

}  // namespace

SearchedPlan plan_by_search(const Batch& batch, const Limits& limits, std::int64_t ticks) {
  FreePlanner planner(batch, limits);
  SearchedPlan result{planner.plan(ticks), planner.makespan_s(), planner.bound_s()};
  result.plan.ranks = limits.cluster().ranks();
  return result;
}

}  // namespace dhp::plan
