#include <algorithm>
#include <numeric>
#include <queue>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "base/number_limits.h"
#include "plan/planners.h"
#include "plan/static/mesh.h"

namespace dhp::plan {
namespace {

/// Pairs of packs that the moves and swaps of one candidate may look at. Only very large clusters come near it.
constexpr std::int64_t kLookBudget = 1'000'000;

/// A sequence and what it needs, by value: packing walks over all of them for every mesh and size of packs.
struct Sized {
  double bytes = 0.0;
  Sequence sequence;
  std::int32_t position = 0;  ///< in the batch
};

double bytes_of(const Load& load, const Limits& limits) { return task_memory_bytes(limits.cost(), load, 1); }

std::vector<Sized> by_falling_memory(const Batch& batch, const Limits& limits) {
  std::vector<std::tuple<double, std::int64_t, std::int32_t>> keys;
  keys.reserve(batch.sequences.size());
  for (std::size_t i = 0; i < batch.sequences.size(); ++i) {
    const double bytes = bytes_of(load_of(std::span(&batch.sequences[i], 1)), limits);
    keys.emplace_back(-bytes, batch.sequences[i].id, static_cast<std::int32_t>(i));
  }
  std::sort(keys.begin(), keys.end());
  std::vector<Sized> result;
  result.reserve(keys.size());
  for (const auto& [negative_bytes, id, position] : keys) {
    result.push_back({-negative_bytes, batch.sequences[static_cast<std::size_t>(position)], position});
  }
  return result;
}

/// Best-fit decreasing: each sequence into the fullest pack that holds it.
Packs pack_best_fit(std::span<const Sized> by_memory, const Limits& limits, int degree, double share) {
  std::vector<Load> loads;
  std::vector<std::vector<std::int32_t>> members;
  std::set<std::pair<double, std::size_t>> by_slack;  // slack and pack
  for (const auto& [bytes, sequence, position] : by_memory) {
    Load joined;
    // Slack is a rounded difference: begin a little below, pack_holds() decides.
    const double least = bytes * (1.0 - 1e-9);
    auto entry = by_slack.lower_bound({least, 0});
    for (; entry != by_slack.end(); ++entry) {
      joined = loads[entry->second];
      joined.add(sequence);
      if (pack_holds(limits, joined, degree, share)) break;
    }
    if (entry == by_slack.end()) {
      joined = {};
      joined.add(sequence);
      entry = by_slack.emplace(0.0, loads.size()).first;
      loads.emplace_back();
      members.emplace_back();
    }
    const std::size_t pack = entry->second;
    auto moved = by_slack.extract(entry);
    loads[pack] = joined;
    members[pack].push_back(position);
    moved.value().first = share * limits.budget_bytes() * degree - bytes_of(joined, limits);
    by_slack.insert(std::move(moved));
  }

  Packs result;
  for (std::size_t pack = 0; pack < loads.size(); ++pack) {
    const std::size_t begin = result.order.size();
    result.order.insert(result.order.end(), members[pack].begin(), members[pack].end());
    result.packs.push_back({loads[pack], begin, result.order.size()});
  }
  return result;
}

/// Packs over the groups of a mesh: longest first to the group that is done first with it, then moves and swaps out of
/// the slowest group while that makes the slower of the two groups quicker.
class Balancer {
 public:
  Balancer(const Packs& packs, const Limits& limits, const Mesh& mesh) : groups_(mesh.groups()) {
    make_kinds(limits, mesh);
    for (const GroupShape& shape : kinds_) {
      const Exchange exchange = limits.exchange_for(shape);
      std::vector<double>& seconds = seconds_.emplace_back();
      for (const Pack& pack : packs.packs) {
        seconds.push_back(task_seconds(limits.cost(), limits.cluster(), pack.load, shape, exchange));
      }
    }
  }

  /// No deal of these packs is quicker.
  double least_s() const {
    double total = 0.0;
    double longest = 0.0;
    for (std::size_t pack = 0; pack < seconds_[0].size(); ++pack) {
      double best = seconds_[0][pack];
      for (const std::vector<double>& seconds : seconds_) best = std::min(best, seconds[pack]);
      total += best;
      longest = std::max(longest, best);
    }
    return std::max(longest, total / static_cast<double>(groups_.size()));
  }

  void deal() {
    std::vector<std::size_t> order(seconds_[0].size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return seconds_[0][a] > seconds_[0][b]; });
    using Entry = std::pair<double, std::size_t>;  // load and group: the least loaded on top, the lower among equals
    std::vector<std::priority_queue<Entry, std::vector<Entry>, std::greater<>>> idlest(kinds_.size());
    for (std::size_t group = 0; group < groups_.size(); ++group) idlest[groups_[group].kind].emplace(0.0, group);
    for (const std::size_t pack : order) {
      std::size_t best = 0;
      const auto done_s = [&](std::size_t kind) { return idlest[kind].top().first + seconds_[kind][pack]; };
      for (std::size_t kind = 1; kind < kinds_.size(); ++kind) {
        if (done_s(kind) < done_s(best)) best = kind;
      }
      const std::size_t group = idlest[best].top().second;
      idlest[best].pop();
      put(pack, group);
      idlest[best].emplace(groups_[group].load_s, group);
    }
  }

  void improve() {
    while (looks_left_ > 0 && step()) {
    }
  }

  double makespan() const { return groups_[slowest()].load_s; }

  /// Group of each pack, and the packs in the order in which they run: group by group, as dealt.
  std::vector<std::pair<std::size_t, std::size_t>> group_and_pack() const {
    std::vector<std::pair<std::size_t, std::size_t>> result;
    for (std::size_t group = 0; group < groups_.size(); ++group) {
      for (const std::size_t pack : groups_[group].packs) result.emplace_back(group, pack);
    }
    return result;
  }

 private:
  struct Group {
    std::size_t kind = 0;
    double load_s = 0.0;
    std::vector<std::size_t> packs = {};
  };

  struct Change {
    std::size_t to = 0;        ///< group that gets the pack
    std::size_t out = 0;       ///< index among the slowest group's packs
    std::ptrdiff_t back = -1;  ///< index among the other group's packs; -1: none comes back
    double slower_s = 0.0;     ///< the slower of the two groups then
  };

  /// Groups of one shape take the same time: few kinds, however many groups.
  void make_kinds(const Limits& limits, const Mesh& mesh) {
    const auto key = [](const GroupShape& shape) {
      return std::tuple(shape.nodes, shape.most_on_node, shape.fewest_on_node, shape.speed);
    };
    for (std::size_t group = 0; group < mesh.groups(); ++group) {
      const auto same = std::find_if(kinds_.begin(), kinds_.end(),
                                     [&](const GroupShape& kind) { return key(kind) == key(mesh.shapes[group]); });
      groups_[group].kind = static_cast<std::size_t>(same - kinds_.begin());
      if (same == kinds_.end()) kinds_.push_back(mesh.shapes[group]);
    }
    looks_left_ = std::max<std::int64_t>(kLookBudget, limits.ranks());
  }

  double seconds(std::size_t pack, const Group& group) const { return seconds_[group.kind][pack]; }

  void put(std::size_t pack, std::size_t group) {
    groups_[group].packs.push_back(pack);
    sum(groups_[group]);
  }

  /// Anew each time, in running order: the same sum as a replay's.
  void sum(Group& group) const {
    group.load_s = 0.0;
    for (const std::size_t pack : group.packs) group.load_s += seconds(pack, group);
  }

  std::size_t slowest() const {
    const auto slower = [](const Group& a, const Group& b) { return a.load_s < b.load_s; };
    return static_cast<std::size_t>(std::max_element(groups_.begin(), groups_.end(), slower) - groups_.begin());
  }

  /// Takes the best move or swap out of the slowest group; false if none helps.
  bool step() {
    const std::size_t from = slowest();
    Change best;
    best.slower_s = groups_[from].load_s * (1.0 - 1e-12);  // rounding alone is no gain
    bool found = false;
    for (std::size_t to = 0; to < groups_.size(); ++to) {
      if (to != from && best_change(from, to, best)) found = true;
    }
    if (!found) return false;
    Group& giver = groups_[from];
    Group& taker = groups_[best.to];
    const std::size_t pack = giver.packs[best.out];
    if (best.back >= 0) {
      std::swap(giver.packs[best.out], taker.packs[static_cast<std::size_t>(best.back)]);
    } else {
      giver.packs.erase(giver.packs.begin() + static_cast<std::ptrdiff_t>(best.out));
      taker.packs.push_back(pack);
    }
    sum(giver);
    sum(taker);
    return true;
  }

  bool best_change(std::size_t from, std::size_t to, Change& best) {
    const Group& giver = groups_[from];
    const Group& taker = groups_[to];
    bool found = false;
    for (std::size_t out = 0; out < giver.packs.size(); ++out) {
      const double giver_s = giver.load_s - seconds(giver.packs[out], giver);
      const double taker_s = taker.load_s + seconds(giver.packs[out], taker);
      looks_left_ -= static_cast<std::int64_t>(taker.packs.size()) + 1;
      for (std::ptrdiff_t back = -1; back < std::ssize(taker.packs); ++back) {
        double slower_s = std::max(giver_s, taker_s);
        if (back >= 0) {
          const std::size_t pack = taker.packs[static_cast<std::size_t>(back)];
          slower_s = std::max(giver_s + seconds(pack, giver), taker_s - seconds(pack, taker));
        }
        if (slower_s >= best.slower_s) continue;
        best = {to, out, back, slower_s};
        found = true;
      }
    }
    return found;
  }

  std::vector<Group> groups_;
  std::vector<GroupShape> kinds_;
  std::vector<std::vector<double>> seconds_;  // by kind and pack
  std::int64_t looks_left_ = kLookBudget;
};

}  // namespace

PlanResult plan_balanced_static(const Batch& batch, const Limits& limits, const PlanOptions& options,
                                std::optional<int> argument) {
  MeshChoice choice = choose_meshes(
      batch, limits, options, argument, [](int) { return true; }, "");
  if (choice.meshes.empty()) return std::move(choice.none);
  const std::vector<Sized> by_memory = by_falling_memory(batch, limits);
  double best_s = kInfinity;
  Plan best;
  for (const Mesh& mesh : choice.meshes) {
    for (const double share : kPackShares) {
      for (const bool best_fit : {false, true}) {
        const Packs packs = best_fit ? pack_best_fit(by_memory, limits, mesh.degree, share)
                                     : pack_next_fit(batch, limits, mesh.degree, share);
        Balancer balancer(packs, limits, mesh);
        if (balancer.least_s() >= best_s) continue;
        balancer.deal();
        balancer.improve();
        if (balancer.makespan() >= best_s) continue;
        best_s = balancer.makespan();
        best = {};
        best.planner = "balanced-static:" + std::to_string(mesh.degree);
        for (const auto& [group, in_group] : balancer.group_and_pack()) {
          const Exchange exchange = limits.exchange_for(mesh.shapes[group]);
          best.tasks.push_back(mesh_task(batch, limits, mesh, packs, in_group, group, exchange));
          best.tasks.back().id = static_cast<int>(best.tasks.size()) - 1;
        }
      }
    }
  }
  return best;
}

}  // namespace dhp::plan
