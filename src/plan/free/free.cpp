// The planner `free`: one plan of the whole batch, without barriers.
//
// Items (sequences) get degrees, groups are placed one by one (group_placer), what runs on one rank fills the holes and
// levels the ends (alone_filler), and a counted search looks for better degrees and orders (search). Large clusters are
// cut into cells that are planned alike (cells). A group of several ranks runs exactly one sequence: several sequences
// share a rank, never a group. That is why few sequences on many ranks also try other planners, at the end of this
// file.
//
// Six sequences on four ranks, as `dhp explain` draws it (docs/design.md, "Planners"):
//
//   rank 0  |--------------- 0 ---------------|-- 1 --|   0: 24,000 tokens; three ranks are the fewest that hold it
//   rank 1  |--------------- 0 ---------------|-- 1 --|   2, 3: 6,000 and 4,000, packed beside it on rank 3
//   rank 2  |--------------- 0 ---------------|-- 1 --|   4, 5: 3,000 and 2,000, behind them
//   rank 3  |------ 2 3 ------|---- 4 5 ----|..|-- 1 --|   1: 9,000; on four ranks, since on three it would end later
#include <algorithm>

#include "plan/free/cells.h"
#include "plan/free/search.h"
#include "plan/planners.h"

namespace dhp::plan {
namespace {

constexpr std::int64_t kTicksPerEffort = 1000;
constexpr double kRounding = 1e-9;  // of seconds: no gain

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
  void search_cells(std::int64_t ticks) {
    constexpr std::int64_t kShare = 4;    // of the ticks for the first look
    constexpr double kSloppy = 1.001;     // times the first cell: level enough for the others
    constexpr double kStandsOut = 1.005;  // times the first cell: worth half more than the ticks granted
    searches_[0].search(ticks / kShare);
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

/// Meshes are dealt in the order of the batch; the plan is not to depend on it.
Batch by_id(const Batch& batch) {
  Batch sorted = batch;
  const auto less = [](const Sequence& a, const Sequence& b) { return a.id < b.id; };
  if (!std::is_sorted(sorted.sequences.begin(), sorted.sequences.end(), less)) {
    std::sort(sorted.sequences.begin(), sorted.sequences.end(), less);
  }
  return sorted;
}

double replayed_s(const Plan& plan, const Batch& batch, const Limits& limits) {
  return replay(plan, predict_task_seconds(plan, batch, limits.cluster(), limits.cost())).makespan_s;
}

/// A lockstep plan without its barriers. Where sequences are few, groups that several share save what the search, which
/// gives a group one sequence, cannot.
std::optional<Plan> without_barriers(const Batch& batch, const Limits& limits, const PlanOptions& options,
                                     std::int64_t effort) {
  PlanOptions plain = options;
  plain.no_idle_ranks = false;
  plain.pipeline_stages = 1;
  plain.effort = std::max<std::int64_t>(1, effort / 2);
  PlanResult result = plan_lockstep(batch, limits, plain, {});
  Plan* plan = std::get_if<Plan>(&result);
  if (plan == nullptr) return std::nullopt;
  plan->schedule = Schedule::free;
  plan->ranks = limits.cluster().ranks();
  for (Task& task : plan->tasks) task.micro_batch = 0;
  return std::move(*plan);
}

/// A balanced mesh whose shards are long enough.
std::optional<Plan> balanced_mesh(const Batch& batch, const Limits& limits, const PlanOptions& options) {
  PlanResult result = plan_balanced_static(batch, limits, options, {});
  Plan* plan = std::get_if<Plan>(&result);
  if (plan == nullptr) return std::nullopt;
  const int degree = plan->tasks.front().degree();
  for (const Sequence& sequence : batch.sequences) {
    if (degree > limits.max_degree(sequence, limits.min_degree(sequence))) return std::nullopt;
  }
  plan->ranks = limits.cluster().ranks();
  return std::move(*plan);
}

/// The best plan so far and its seconds.
struct Best {
  Plan plan;
  double seconds = 0.0;

  void offer(std::optional<Plan>&& other, const Batch& batch, const Limits& limits) {
    if (!other) return;
    const double other_s = replayed_s(*other, batch, limits);
    if (other_s >= seconds * (1.0 - kRounding)) return;
    plan = std::move(*other);
    seconds = other_s;
  }
};

}  // namespace

PlanResult plan_free(const Batch& in_any_order, const Limits& limits, const PlanOptions& options,
                     std::optional<int> /*argument*/) {
  constexpr int kFew = 2;              // sequences a rank
  constexpr double kGoodGap = 1.01;    // times the bound: not worth another look
  constexpr int kMostBalanced = 1024;  // sequences: more would take too long
  const std::int64_t effort = options.effort;
  const Batch batch = by_id(in_any_order);
  const std::ptrdiff_t sequences = std::ssize(batch.sequences);
  FreePlanner planner(batch, limits);
  Best best{planner.plan(effort * kTicksPerEffort), planner.makespan_s()};
  const double bound_s = planner.bound_s();
  if (best.seconds <= bound_s * (1.0 + kRounding)) return std::move(best.plan);
  if (sequences <= kFew * static_cast<std::ptrdiff_t>(limits.ranks()) && best.seconds > kGoodGap * bound_s) {
    best.offer(without_barriers(batch, limits, options, effort), batch, limits);
  }
  // A mesh that happens to suit the batch, as for equal sequences, is not missed.
  best.offer(static_plan_below(batch, limits, options, best.seconds * (1.0 - kRounding)), batch, limits);
  if (effort >= kEffortDefault && sequences <= kMostBalanced) {
    best.offer(balanced_mesh(batch, limits, options), batch, limits);
  }
  best.plan.planner.clear();
  return std::move(best.plan);
}

}  // namespace dhp::plan
