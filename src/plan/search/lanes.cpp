// Lanes: a planner runs on a derived cluster in which a lane of `width` ranks of a node is one rank. Its
// times are exact but for transfers inside a lane, which become work per token. Then every lane is replaced by its
// ranks.
#include "plan/search/lanes.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <limits>
#include <numeric>
#include <queue>
#include <span>
#include <utility>

#include "base/index.h"
#include "base/number_limits.h"

namespace dhp::plan {
namespace {

constexpr double kRoundingOfBytes = 1e-12;

double seconds_alone(const Limits& limits, const Sequence& sequence, const GroupShape& shape) {
  return task_seconds(limits.cost(), limits.cluster(), load_of(std::span(&sequence, 1)), shape,
                      limits.exchange_for(shape));
}

/// Ranks of every lane, lane by lane. Nothing where a lane would have ranks out of service and others.
std::optional<std::vector<Rank>> ranks_of_lanes(const Limits& limits, const PlanOptions& options, int width) {
  const Cluster& cluster = limits.cluster();
  std::vector<Rank> ranks(index(cluster.ranks()));
  std::iota(ranks.begin(), ranks.end(), 0);
  if (cluster.rank_speed.empty()) return ranks;
  // A lane is as slow as its slowest rank: ranks of a node that are alike share one.
  const bool may_choose = options.placement == Placement::any && options.max_peers == 0;
  for (auto node = ranks.begin(); may_choose && node != ranks.end(); node += cluster.ranks_per_node) {
    std::stable_sort(node, node + cluster.ranks_per_node,
                     [&](Rank a, Rank b) { return cluster.speed_of(a) > cluster.speed_of(b); });
  }
  for (std::size_t first = 0; first < ranks.size(); first += index(width)) {
    const auto serves = [&](Rank rank) { return cluster.speed_of(rank) > 0.0; };
    const auto serving = std::count_if(ranks.begin() + static_cast<std::ptrdiff_t>(first),
                                       ranks.begin() + static_cast<std::ptrdiff_t>(first) + width, serves);
    if (serving != 0 && serving != width) return std::nullopt;
  }
  return ranks;
}

/// What planners are given in which a lane looks like a rank.
struct Derived {
  Batch batch;
  Cluster cluster;
  CostModel cost;
  PlanOptions options;

  Limits limits() const { return {cluster, cost, options, options.exchanges}; }
};

PlanOptions options_of_lanes(const PlanOptions& options, const Limits& limits, int width) {
  PlanOptions derived = options;
  derived.exchanges = limits.exchanges();
  derived.max_degree /= width;
  for (int& heads : derived.degrees_divide) heads /= width;
  derived.max_tokens_per_rank *= width;
  derived.min_shard_tokens = std::min(options.min_shard_tokens, std::numeric_limits<int>::max() / width) * width;
  if (options.max_peers > 0) derived.max_peers = (options.max_peers + 1) / width - 1;
  if (options.max_peers > 0 && derived.max_peers == 0) derived.max_degree = 1;  // 0 peers would be no limit
  return derived;
}

Cluster cluster_of_lanes(const Limits& limits, const std::vector<Rank>& ranks, int width) {
  Cluster derived = limits.cluster();
  derived.ranks_per_node /= width;
  derived.memory_bytes = width * limits.budget_bytes();
  // Other multiples round, and a plan that just fits the lanes must fit their ranks.
  if (!std::has_single_bit(static_cast<unsigned>(width))) derived.memory_bytes *= 1.0 - kRoundingOfBytes;
  if (derived.rank_speed.empty()) return derived;
  derived.rank_speed.clear();
  for (std::size_t first = 0; first < ranks.size(); first += index(width)) {
    double slowest = 1.0;
    for (std::size_t i = first; i < first + index(width); ++i) {
      slowest = std::min(slowest, limits.cluster().speed_of(ranks[i]));
    }
    derived.rank_speed.push_back(slowest);
  }
  return derived;
}

CostModel cost_of_lanes(const CostModel& cost, int width) {
  CostModel derived = cost;
  derived.state_bytes = 0.0;
  derived.residuals.clear();
  for (const ResidualFactor& residual : cost.residuals) {
    if (residual.degree % width != 0 || residual.degree == width) continue;  // one lane's own: derive()
    derived.residuals.push_back({residual.degree / width, residual.tokens, residual.factor});
  }
  derived.patch_s /= width;
  derived.patch_pair_s /= static_cast<double>(width) * width;
  for (PassCost* pass : {&derived.forward, &derived.backward}) {
    pass->token_s /= width;
    pass->pair_s /= width;
    pass->step_s *= width;
    pass->sequence_step_s *= width;
  }
  return derived;
}

Derived derive(const Batch& batch, const Limits& limits, const PlanOptions& options, const std::vector<Rank>& ranks,
               int width) {
  Derived derived{batch, cluster_of_lanes(limits, ranks, width), cost_of_lanes(limits.cost(), width),
                  options_of_lanes(options, limits, width)};
  for (Sequence& sequence : derived.batch.sequences) {
    sequence.frame_patches = std::min<std::int64_t>(sequence.patches, width * sequence.frame_patches);
  }
  // What a sequence takes longer on a lane than the derived cost says, as work per token, half of it in each pass.
  const Limits lanes = derived.limits();
  const GroupShape shape{width, 1, width, width, 1.0};
  double longer_s = 0.0;
  double tokens = 0.0;
  for (std::size_t i = 0; i < batch.sequences.size(); ++i) {
    const double derived_s = seconds_alone(lanes, derived.batch.sequences[i], GroupShape{});
    longer_s += seconds_alone(limits, batch.sequences[i], shape) - derived_s;
    tokens += static_cast<double>(batch.sequences[i].tokens);
  }
  for (PassCost* pass : {&derived.cost.forward, &derived.cost.backward}) {
    pass->token_s = std::max(0.0, pass->token_s + longer_s / tokens / 2);
  }
  return derived;
}

/// Whether shards of the sequence are long enough on a lane, or on as many lanes as hold it.
bool suits_lanes(const Sequence& sequence, const Limits& limits, const Limits& lanes, int width) {
  const int degree = lanes.min_degree(sequence) * width;
  return degree > 0 && degree <= limits.max_degree(sequence, limits.min_degree(sequence));
}

/// Adds tasks of sequences that are too short for lanes: dealt longest first to the lanes that end first, and run at
/// their ends, together, on as many ranks as the shortest allows.
class ShortSequences {
 public:
  ShortSequences(const Limits& limits, const std::vector<Rank>& ranks, int width)
      : limits_(limits), ranks_(ranks), width_(width) {}

  /// Whether they fit inside a lane.
  bool can_run(const Sequence& sequence) const { return limits_.min_degree(sequence) <= width_; }

  void append(Plan& plan, const Batch& batch, std::vector<Sequence> sequences) const {
    std::sort(sequences.begin(), sequences.end(), [](const Sequence& a, const Sequence& b) {
      return a.tokens != b.tokens ? a.tokens > b.tokens : a.id < b.id;
    });
    using End = std::pair<double, std::size_t>;  // seconds, lane
    std::priority_queue<End, std::vector<End>, std::greater<>> ends;
    for (const double end_s : ends_of_lanes(plan, batch)) ends.emplace(end_s, ends.size());
    std::vector<std::vector<Sequence>> dealt(ends.size());
    for (const Sequence& sequence : sequences) {
      const auto [end_s, lane] = ends.top();
      ends.pop();
      const GroupShape shape = shape_of(limits_.cluster(), group(lane, degree_of({sequence})));
      const double task_s = dealt[lane].empty() ? 0.0 : limits_.cost().task_s;
      ends.emplace(end_s + (seconds_alone(limits_, sequence, shape) - task_s), lane);
      dealt[lane].push_back(sequence);
    }
    for (std::size_t lane = 0; lane < dealt.size(); ++lane) append_lane(plan, lane, std::move(dealt[lane]));
  }

 private:
  std::vector<Rank> group(std::size_t lane, int degree) const {
    const auto first = ranks_.begin() + static_cast<std::ptrdiff_t>(lane * index(width_));
    std::vector<Rank> group(first, first + degree);
    std::sort(group.begin(), group.end());
    return group;
  }

  /// As many ranks as the shortest allows. At least one of the sequences fits them.
  int degree_of(const std::vector<Sequence>& sequences) const {
    int degree = width_;
    for (const Sequence& sequence : sequences) {
      degree = std::min(degree, limits_.max_degree(sequence, limits_.min_degree(sequence)));
    }
    while (!limits_.allows(degree)) --degree;
    return degree;
  }

  /// By lane; infinite for lanes out of service.
  std::vector<double> ends_of_lanes(const Plan& plan, const Batch& batch) const {
    const Timeline timeline = replay(plan, predict_task_seconds(plan, batch, limits_.cluster(), limits_.cost()));
    std::vector<double> by_rank(index(plan.ranks), 0.0);
    for (std::size_t i = 0; i < plan.tasks.size(); ++i) {
      for (const Rank rank : plan.tasks[i].ranks) by_rank[index(rank)] = timeline.end_s[i];
    }
    std::vector<double> by_lane;
    for (std::size_t first = 0; first < ranks_.size(); first += index(width_)) {
      const bool serves = limits_.cluster().speed_of(ranks_[first]) > 0.0;
      by_lane.push_back(serves ? by_rank[index(ranks_[first])] : kInfinity);
    }
    return by_lane;
  }

  void append_lane(Plan& plan, std::size_t lane, std::vector<Sequence> left) const {
    while (!left.empty()) {
      const int degree = degree_of(left);
      Task& task = plan.tasks.emplace_back();
      task.ranks = group(lane, degree);
      task.exchange = limits_.exchange_for(shape_of(limits_.cluster(), task.ranks));
      Load load;
      std::vector<Sequence> rest;
      for (const Sequence& sequence : left) {
        Load joined = load;
        joined.add(sequence);
        if (limits_.fits(joined, degree)) {
          load = joined;
          task.sequences.push_back(sequence.id);
        } else {
          rest.push_back(sequence);
        }
      }
      left = std::move(rest);
    }
  }

  const Limits& limits_;
  const std::vector<Rank>& ranks_;
  int width_;
};

void spread(Plan& plan, const Limits& limits, const std::vector<Rank>& ranks, int width) {
  plan.ranks = limits.cluster().ranks();
  for (Task& task : plan.tasks) {
    std::vector<Rank> spread;
    spread.reserve(task.ranks.size() * index(width));
    for (const Rank lane : task.ranks) {
      const auto first = ranks.begin() + static_cast<std::ptrdiff_t>(lane) * width;
      spread.insert(spread.end(), first, first + width);
    }
    std::sort(spread.begin(), spread.end());
    task.ranks = std::move(spread);
    task.exchange = limits.exchange_for(shape_of(limits.cluster(), task.ranks));
  }
}

}  // namespace

std::vector<int> lane_widths(const Limits& limits, const PlanOptions& options) {
  constexpr int kManyRanks = 192;  // where every width takes milliseconds
  constexpr int kVeryManyRanks = 512;
  const int node = limits.cluster().ranks_per_node;
  const auto suits = [&](int width) {
    const bool divides = std::all_of(options.degrees_divide.begin(), options.degrees_divide.end(),
                                     [&](int heads) { return heads % width == 0; });
    const bool fills_blocks = options.max_peers == 0 || (options.max_peers + 1) % width == 0;
    return node % width == 0 && limits.allows(width) && divides && fills_blocks;
  };
  std::vector<int> widths;
  for (const int width : limits.ranks() > kVeryManyRanks ? std::vector{node}
                         : limits.ranks() > kManyRanks   ? std::vector{node / 2, node}
                                                         : std::vector{2, 4, 8, node}) {
    const bool wider = widths.empty() || width > widths.back();
    if (width > 1 && width <= node && wider && suits(width)) widths.push_back(width);
  }
  return widths;
}

std::optional<Plan> plan_lanes(const Batch& batch, const Limits& limits, const PlanOptions& options, int width,
                               const LanePlanner& planner) {
  const std::optional<std::vector<Rank>> ranks = ranks_of_lanes(limits, options, width);
  if (!ranks) return std::nullopt;
  const Derived derived = derive(batch, limits, options, *ranks, width);
  const Limits lanes = derived.limits();
  const ShortSequences shorter(limits, *ranks, width);
  Batch wide;
  std::vector<Sequence> narrow;
  for (std::size_t i = 0; i < batch.sequences.size(); ++i) {
    if (suits_lanes(batch.sequences[i], limits, lanes, width)) {
      wide.sequences.push_back(derived.batch.sequences[i]);
    } else if (shorter.can_run(batch.sequences[i])) {
      narrow.push_back(batch.sequences[i]);
    } else {
      return std::nullopt;
    }
  }
  if (wide.sequences.empty()) return std::nullopt;
  std::optional<Plan> plan = planner(wide, lanes, derived.options);
  if (!plan || (!narrow.empty() && plan->schedule != Schedule::free)) return std::nullopt;
  spread(*plan, limits, *ranks, width);
  if (!narrow.empty()) shorter.append(*plan, batch, std::move(narrow));
  for (std::size_t i = 0; i < plan->tasks.size(); ++i) plan->tasks[i].id = static_cast<int>(i);
  return plan;
}

}  // namespace dhp::plan
