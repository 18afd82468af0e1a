// The planner `free`: one plan of the whole batch, without barriers.
//
// The shortest plan by estimate: items (sequences) get degrees, groups are placed one by one (group_placer), what runs
// on one rank fills the holes and levels the ends (alone_filler), and a counted search looks for better degrees and
// orders (search). Large clusters are cut into cells that are planned alike (cells). A group of several ranks runs
// exactly one sequence: several sequences share a rank, never a group. That is why few sequences on many ranks, and
// whatever ends far above the bound, also try other planners.
//
// The plan: of that one and others that errors of estimates harm less, the quickest on average over scenarios of errors
// (scenarios), if it is not much longer without errors: plans of lanes, packs cut finer, a balanced mesh.
//
// Six sequences on four ranks, as `dhp explain` draws it (docs/design.md, "Planners"):
//
//   rank 0  |--------------- 0 ---------------|-- 1 --|   0: 24,000 tokens; three ranks are the fewest that hold it
//   rank 1  |--------------- 0 ---------------|-- 1 --|   2, 3: 6,000 and 4,000, packed beside it on rank 3
//   rank 2  |--------------- 0 ---------------|-- 1 --|   4, 5: 3,000 and 2,000, behind them
//   rank 3  |------ 2 3 ------|---- 4 5 ----|..|-- 1 --|   1: 9,000; on four ranks, since on three it would end later
#include <algorithm>

#include "base/index.h"
#include "plan/free/by_search.h"
#include "plan/planners.h"
#include "plan/search/candidates.h"
#include "plan/search/lanes.h"

namespace dhp::plan {
namespace {

constexpr std::int64_t kTicksPerEffort = 1000;
constexpr int kMostBalanced = 1024;      // sequences: more would take too long to deal to meshes
constexpr std::int64_t kLaneShare = 20;  // of the effort, one part for the lanes of a width; more gains nothing

/// A lockstep plan without its barriers. Where sequences are few or memory is tight, groups that several share save
/// what the search, which gives a group one sequence, cannot.
std::optional<Plan> without_barriers(const Batch& batch, const Limits& limits, const PlanOptions& options,
                                     std::int64_t effort) {
  PlanOptions plain = options;
  plain.no_idle_ranks = false;
  plain.pipeline_stages = 1;
  plain.effort = std::max<std::int64_t>(1, effort / 2);
  PlanResult result = plan_lockstep_shortest(batch, limits, plain);
  Plan* plan = std::get_if<Plan>(&result);
  if (plan == nullptr) return std::nullopt;
  plan->schedule = Schedule::free;
  plan->ranks = limits.cluster().ranks();
  for (Task& task : plan->tasks) task.micro_batch = 0;
  return std::move(*plan);
}

/// A balanced mesh whose shards are long enough, of this degree or, if it is 0, the best one.
std::optional<Plan> balanced_mesh(const Batch& batch, const Limits& limits, const PlanOptions& options, int degree) {
  PlanResult result = plan_balanced_static(batch, limits, options, degree > 0 ? std::optional(degree) : std::nullopt);
  Plan* plan = std::get_if<Plan>(&result);
  if (plan == nullptr) return std::nullopt;
  degree = plan->tasks.front().degree();
  for (const Sequence& sequence : batch.sequences) {
    if (degree > limits.max_degree(sequence, limits.min_degree(sequence))) return std::nullopt;
  }
  plan->ranks = limits.cluster().ranks();
  return std::move(*plan);
}

/// Offers plans of the batch without lanes. Returns whether no plan is shorter than the best of them.
bool offer_without_lanes(Candidates& candidates, const Batch& batch, const Limits& limits, const PlanOptions& options) {
  constexpr std::ptrdiff_t kFew = 2;     // sequences a rank
  constexpr std::ptrdiff_t kQuick = 64;  // sequences that take no time to look at
  constexpr double kGoodGap = 1.01;      // times the bound: not worth another look
  constexpr double kLargeGap = 1.04;     // worth one where sequences are many, too
  const std::int64_t effort = options.effort;
  const std::ptrdiff_t sequences = std::ssize(batch.sequences);
  SearchedPlan searched = plan_by_search(batch, limits, effort * kTicksPerEffort);
  const double bound_s = searched.bound_s;
  candidates.offer(std::move(searched.plan));
  if (searched.makespan_s <= bound_s * (1.0 + kRounding)) return true;
  const bool is_quick = sequences <= std::max(kQuick, kFew * static_cast<std::ptrdiff_t>(limits.ranks()));
  const std::ptrdiff_t most = candidates.has_large_errors() ? kMostBalanced : 2 * kQuick;
  const bool may_err = candidates.has_errors() && sequences <= most && effort >= kEffortDefault;
  const bool is_far = searched.makespan_s > (is_quick ? kGoodGap : kLargeGap) * bound_s;
  if (may_err || (is_far && (is_quick || sequences <= kMostBalanced))) {
    candidates.offer(without_barriers(batch, limits, options, effort));
  }
  // A mesh that happens to suit the batch, as for equal sequences, is not missed.
  candidates.offer(static_plan_below(batch, limits, options, candidates.least_s() * (1.0 - kRounding)));
  if (effort >= kEffortDefault && sequences <= kMostBalanced) {
    candidates.offer(balanced_mesh(batch, limits, options, 0));
  }
  return false;
}

/// Tasks of several sequences, cut into tasks of at most `most`: the longest to each in turn.
Plan cut_packs(const Plan& plan, const Batch& batch, const SequenceIndex& sequences, std::size_t most) {
  Plan cut{.schedule = plan.schedule, .ranks = plan.ranks};
  cut.tasks.reserve(batch.sequences.size());
  std::vector<std::int64_t> ids;
  for (const Task& task : plan.tasks) {
    ids = task.sequences;
    const auto longer = [&](std::int64_t a, std::int64_t b) {
      return sequences.find(a)->tokens > sequences.find(b)->tokens;
    };
    if (ids.size() > most) std::stable_sort(ids.begin(), ids.end(), longer);
    const std::size_t parts = (ids.size() + most - 1) / most;
    for (std::size_t part = 0; part < parts; ++part) {
      Task& made = cut.tasks.emplace_back();
      made.id = static_cast<int>(cut.tasks.size()) - 1;
      made.ranks = task.ranks;
      made.exchange = task.exchange;
      for (std::size_t i = part; i < ids.size(); i += parts) made.sequences.push_back(ids[i]);
    }
  }
  return cut;
}

/// A candidate with its packs cut finer and finer, as long as what more tasks cost leaves a chance.
void offer_cut(Candidates& candidates, const Batch& batch, const Limits& limits, const Candidates::Candidate& of) {
  const auto [plan, makespan_s, expected_s] = of;  // a copy: offers move what they are added to
  const SequenceIndex sequences(batch);
  const CostModel& cost = limits.cost();
  for (const std::size_t most : {8, 4, 2, 1}) {
    double added_s = 0.0;  // rank time
    for (const Task& task : plan.tasks) {
      const std::size_t whole_parts = (task.sequences.size() + most - 1) / most;
      const auto parts = static_cast<double>(whole_parts);
      const double degree = task.degree();
      added_s += (parts - 1) * degree * (cost.task_s + degree * (cost.forward.step_s + cost.backward.step_s));
    }
    if (added_s == 0.0) continue;
    if (makespan_s + added_s / limits.ranks() > candidates.longest_s()) break;
    candidates.offer(cut_packs(plan, batch, sequences, most));
  }
}

/// Offers plans that errors of estimates harm less; those of lanes are now and then shorter, too.
void offer_steadier(Candidates& candidates, const Batch& batch, const Limits& limits, const PlanOptions& options) {
  const std::int64_t ticks = std::max<std::int64_t>(1, options.effort / kLaneShare) * kTicksPerEffort;
  const bool quick = options.effort <= kEffortFast;  // lanes would take longer than the rest
  const std::vector<int> widths = quick ? std::vector<int>() : lane_widths(limits, options);
  const LanePlanner search = [&](const Batch& on_lanes, const Limits& lanes, const PlanOptions&) {
    return plan_by_search(on_lanes, lanes, ticks).plan;
  };
  for (const int width : widths) candidates.offer(plan_lanes(batch, limits, options, width, search));
  if (!candidates.has_errors()) return;
  if (options.effort >= kEffortDefault && std::ssize(batch.sequences) <= kMostBalanced) {
    candidates.offer(balanced_mesh(batch, limits, options, 1));
    if (!widths.empty()) candidates.offer(balanced_mesh(batch, limits, options, widths.back()));
  }
  if (!candidates.has_large_errors()) return offer_cut(candidates, batch, limits, candidates.best());
  const std::size_t count = candidates.all().size();
  for (std::size_t i = 0; i < count; ++i) offer_cut(candidates, batch, limits, candidates.all()[i]);
}

}  // namespace

PlanResult plan_free(const Batch& in_any_order, const Limits& limits, const PlanOptions& options,
                     std::optional<int> /*argument*/) {
  const Batch batch = by_id(in_any_order);
  Candidates candidates(batch, limits, options);
  const bool is_shortest = offer_without_lanes(candidates, batch, limits, options);
  if (!is_shortest || candidates.has_errors()) offer_steadier(candidates, batch, limits, options);
  Plan plan = std::move(candidates.best().plan);
  plan.planner.clear();
  return plan;
}

}  // namespace dhp::plan
