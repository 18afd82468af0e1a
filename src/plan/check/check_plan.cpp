// The independent checker. It shares no code with the planners, and derives the timeline anew: as the longest path
// through the order that the schedule prescribes, where replay() walks clocks of ranks.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "base/json_reader.h"
#include "dhp/bound.h"
#include "dhp/plan.h"
#include "formats/shape.h"
#include "plan/check/met_ranks.h"

namespace dhp {
namespace {

constexpr double kTimeTolerance = 1e-9;  // relative

bool close(double a, double b) { return std::abs(a - b) <= kTimeTolerance * std::max(std::abs(a), std::abs(b)); }

/// Plans that were made in memory may hold numbers that JSON cannot.
std::string shown(double value) { return std::isfinite(value) ? format_number(value) : std::to_string(value); }

std::string gibibytes(double bytes) {
  constexpr double kGibibyte = 1024.0 * 1024.0 * 1024.0;
  return shown(std::round(bytes / kGibibyte * 1000.0) / 1000.0) + " GiB";
}

class Checker {
 public:
  Checker(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost)
      : plan_(plan), batch_(batch), cluster_(cluster), cost_(cost) {}

  std::vector<std::string> run() {
    check_ranks_of_plan();
    find_positions();
    find_ranks();
    for (std::size_t i = 0; i < plan_.tasks.size(); ++i) check_task(i);
    check_coverage();
    if (plan_.schedule == Schedule::lockstep) check_micro_batches();
    check_hash();
    check_peers();
    if (timed_) check_times();
    return std::move(violations_);
  }

 private:
  void violation(const std::string& sentence) { violations_.push_back(sentence); }

  void find_positions() {
    const std::vector<Sequence>& sequences = batch_.sequences;
    task_of_.assign(sequences.size(), kNoTask);
    for (std::size_t position = 0; position < sequences.size(); ++position)
      positions_.emplace_back(sequences[position].id, position);
    if (!std::is_sorted(positions_.begin(), positions_.end())) std::sort(positions_.begin(), positions_.end());
  }

  /// Tables by rank are vectors: those of the plan first, then others that tasks name.
  void find_ranks() {
    ranks_ = static_cast<std::size_t>(std::clamp(plan_.ranks, 0, kMaxRanks));
    const auto is_outside = [&](Rank rank) { return rank < 0 || static_cast<std::size_t>(rank) >= ranks_; };
    for (const Task& task : plan_.tasks) {
      std::copy_if(task.ranks.begin(), task.ranks.end(), std::back_inserter(outside_), is_outside);
    }
    std::sort(outside_.begin(), outside_.end());
    outside_.erase(std::unique(outside_.begin(), outside_.end()), outside_.end());
    last_task_of_.assign(ranks_ + outside_.size(), kNoTask);
  }

  std::size_t slot_of(Rank rank) const {
    if (rank >= 0 && static_cast<std::size_t>(rank) < ranks_) return static_cast<std::size_t>(rank);
    const auto found = std::lower_bound(outside_.begin(), outside_.end(), rank);
    return ranks_ + static_cast<std::size_t>(found - outside_.begin());
  }

  /// Of a sequence in the batch; nothing if the batch lacks it.
  std::optional<std::size_t> position_of(std::int64_t id) const {
    // Ids mostly count up by one.
    const std::uint64_t guess =
        static_cast<std::uint64_t>(id) - static_cast<std::uint64_t>(positions_.empty() ? 0 : positions_.front().first);
    if (guess < positions_.size() && positions_[guess].first == id) return positions_[guess].second;
    const auto found = std::lower_bound(positions_.begin(), positions_.end(), std::pair(id, std::size_t{0}));
    return found != positions_.end() && found->first == id ? std::optional(found->second) : std::nullopt;
  }

  static std::string name(std::size_t task) { return "tasks[" + std::to_string(task) + "]"; }

  void check_ranks_of_plan() {
    if (plan_.ranks == cluster_.ranks()) return;
    violation("the plan is for " + std::to_string(plan_.ranks) + " ranks, the cluster has " +
              std::to_string(cluster_.ranks()));
    timed_ = false;
  }

  void check_task(std::size_t i) {
    const Task& task = plan_.tasks[i];
    if (task.id != static_cast<int>(i)) {
      violation(name(i) + " has id " + std::to_string(task.id) + ", expected " + std::to_string(i));
    }
    if (task.micro_batch < 0) {
      violation(name(i) + " has micro_batch " + std::to_string(task.micro_batch) + ", expected at least 0");
    }
    if (i > 0 && task.micro_batch < plan_.tasks[i - 1].micro_batch) {
      violation(name(i) + " has micro_batch " + std::to_string(task.micro_batch) + " after micro_batch " +
                std::to_string(plan_.tasks[i - 1].micro_batch) + "; it must never decrease");
    }
    const bool group_ok = check_group(i);
    const std::optional<Load> load = check_sequences(i);
    const bool exchange_ok = check_exchange(i);
    if (!load || !group_ok || !exchange_ok) timed_ = false;
    if (load && !task.ranks.empty()) check_memory(i, *load);
    if (timed_)
      durations_.push_back(task_seconds(cost_, cluster_, *load, shape_of(cluster_, task.ranks), task.exchange));
  }

  bool check_group(std::size_t i) {
    const Task& task = plan_.tasks[i];
    bool ok = true;
    if (task.ranks.empty()) {
      violation(name(i) + " has no ranks");
      ok = false;
    }
    for (const Rank rank : task.ranks) {
      if (rank < 0 || rank >= plan_.ranks) {
        violation(name(i) + " has rank " + std::to_string(rank) + ", outside 0 to " + std::to_string(plan_.ranks - 1));
        ok = false;
      } else if (rank < cluster_.ranks() && !(cluster_.speed_of(rank) > 0.0)) {
        violation(name(i) + " has rank " + std::to_string(rank) + ", which is out of service");
        ok = false;
      }
      if (std::exchange(last_task_of_[slot_of(rank)], i) == i) {
        violation(name(i) + " has rank " + std::to_string(rank) + " twice");
        ok = false;
      }
    }
    return ok;
  }

  /// The load of the task, unless it names sequences that do not exist.
  std::optional<Load> check_sequences(std::size_t i) {
    const Task& task = plan_.tasks[i];
    if (task.sequences.empty()) violation(name(i) + " has no sequences");
    Load load;
    bool known = !task.sequences.empty();
    for (const std::int64_t id : task.sequences) {
      const std::optional<std::size_t> position = position_of(id);
      if (!position) {
        violation(name(i) + " has sequence " + std::to_string(id) + ", which the batch lacks");
        known = false;
        continue;
      }
      load.add(batch_.sequences[*position]);
      std::size_t& first = task_of_[*position];
      if (first == kNoTask) {
        first = i;
      } else {
        violation("sequence " + std::to_string(id) + " stands in " + name(first) + " and again in " + name(i));
      }
    }
    return known ? std::optional(load) : std::nullopt;
  }

  bool check_exchange(std::size_t i) {
    const Task& task = plan_.tasks[i];
    if (task.exchange != Exchange::all_to_all) return true;
    if (cost_.query_heads < 1 || cost_.forward.all_to_all_bytes_per_token <= 0.0 ||
        cost_.backward.all_to_all_bytes_per_token <= 0.0) {
      violation(name(i) + " uses all_to_all, but the cost model lacks query_heads or all_to_all_bytes_per_token");
      return false;
    }
    if (task.degree() > 0 && cost_.query_heads % task.degree() != 0) {
      violation(name(i) + " uses all_to_all on " + std::to_string(task.degree()) + " ranks, which do not divide " +
                std::to_string(cost_.query_heads) + " query heads");
    }
    return true;
  }

  void check_memory(std::size_t i, const Load& load) {
    const double needed = task_memory_bytes(cost_, load, plan_.tasks[i].degree());
    const double offered = activation_budget_bytes(cost_, cluster_);
    if (needed <= offered) return;
    const bool tokens = counts_tokens(cost_);
    const auto text = [&](double amount) { return tokens ? shown(amount) + " tokens" : gibibytes(amount); };
    violation(name(i) + " needs " + text(needed) + " a rank for activations, " + text(offered) + " are there");
  }

  void check_coverage() {
    for (std::size_t position = 0; position < task_of_.size(); ++position) {
      if (task_of_[position] != kNoTask) continue;
      violation("sequence " + std::to_string(batch_.sequences[position].id) + " is in no task");
      timed_ = false;
    }
  }

  /// Complaints come in the order of the tasks.
  void check_micro_batches() {
    std::vector<std::size_t> first_of(last_task_of_.size(), kNoTask);  // by rank: of its last micro-batch so far
    std::vector<std::tuple<std::size_t, Rank, std::size_t>> shared;    // task, rank, first task with it
    for (const std::size_t i : tasks_by_micro_batch(plan_)) {
      const Task& task = plan_.tasks[i];
      for (const Rank rank : task.ranks) {
        std::size_t& first = first_of[slot_of(rank)];
        if (first == kNoTask || plan_.tasks[first].micro_batch != task.micro_batch) first = i;
        if (first != i) shared.emplace_back(i, rank, first);
      }
    }
    std::sort(shared.begin(), shared.end());
    shared.erase(std::unique(shared.begin(), shared.end()), shared.end());
    for (const auto& [i, rank, first] : shared) {
      violation("lockstep: rank " + std::to_string(rank) + " is in " + name(first) + " and " + name(i) +
                " of micro_batch " + std::to_string(plan_.tasks[i].micro_batch));
    }
  }

  void check_hash() {
    if (plan_.hash.empty()) return;
    const std::string actual = plan_hash(plan_, batch_);
    if (plan_.hash == actual) return;
    violation("hash is " + plan_.hash + ", but plan and batch give " + actual +
              "; the plan was changed, or is for another batch");
  }

  void check_peers() {
    if (!plan_.most_peers) return;
    const auto slot_of_rank = [&](Rank rank) { return slot_of(rank); };
    std::ptrdiff_t most = 0;
    for (const std::ptrdiff_t met : count_met_ranks(plan_, last_task_of_.size(), slot_of_rank)) {
      most = std::max(most, met);
    }
    if (*plan_.most_peers == most) return;
    violation("most_peers is " + std::to_string(*plan_.most_peers) + ", expected " + std::to_string(most));
  }

  /// Start and end of every task: the longest path over the tasks that must come before it.
  struct Times {
    std::vector<double> starts;
    std::vector<double> ends;
  };
  Times longest_paths() const {
    Times times;
    std::vector<double>& ends = times.ends;
    ends.assign(plan_.tasks.size(), 0.0);
    times.starts.reserve(plan_.tasks.size());
    std::vector<double> ready(last_task_of_.size(), 0.0);  // by rank: the end of its last task
    double latest = 0.0;                                   // end of the tasks so far
    double barrier = 0.0;                                  // when the last task of an earlier micro-batch ends
    for (std::size_t i = 0; i < plan_.tasks.size(); ++i) {
      if (i > 0 && plan_.tasks[i].micro_batch != plan_.tasks[i - 1].micro_batch) barrier = latest;
      double start = 0.0;
      for (const Rank rank : plan_.tasks[i].ranks) start = std::max(start, ready[slot_of(rank)]);
      if (plan_.schedule != Schedule::free) start = std::max(start, barrier);
      times.starts.push_back(start);
      ends[i] = start + durations_[i];
      for (const Rank rank : plan_.tasks[i].ranks) ready[slot_of(rank)] = ends[i];
      latest = std::max(latest, ends[i]);
    }
    return times;
  }

  void check_times() {
    const auto by_micro_batch = [](const Task& a, const Task& b) { return a.micro_batch < b.micro_batch; };
    if (!std::is_sorted(plan_.tasks.begin(), plan_.tasks.end(), by_micro_batch)) return;  // named already
    const Times times = longest_paths();
    double makespan = 0.0;
    for (std::size_t i = 0; i < times.ends.size(); ++i) {
      check_time([&] { return name(i) + ".start_s"; }, plan_.tasks[i].start_s, times.starts[i]);
      check_time([&] { return name(i) + ".end_s"; }, plan_.tasks[i].end_s, times.ends[i]);
      makespan = std::max(makespan, times.ends[i]);
    }
    if (plan_.predicted) check_prediction(makespan);
  }

  template <typename Name>
  void check_time(const Name& what, const std::optional<double>& found, double expected) {
    if (!found || close(*found, expected)) return;
    violation(what() + " is " + shown(*found) + ", expected " + shown(expected));
  }

  void check_prediction(double makespan) {
    const Prediction& predicted = *plan_.predicted;
    check_time([] { return std::string("predicted.makespan_s"); }, predicted.makespan_s, makespan);
    const double bound = predicted.lower_bound_s;
    check_bound(bound);
    if (bound > makespan && !close(bound, makespan)) {
      violation("predicted.lower_bound_s is " + shown(bound) + ", above the makespan " + shown(makespan) +
                ", so it is no bound");
    }
    const double ratio = bound > 0.0 ? predicted.makespan_s / bound : 1.0;
    if (!close(predicted.gap + 1.0, ratio)) {
      violation("predicted.gap is " + shown(predicted.gap) +
                ", expected makespan / lower bound - 1 = " + shown(ratio - 1.0));
    }
  }

  void check_bound(double bound) {
    const bool all_to_all = uses_all_to_all(plan_);  // for which none is known
    const double simple = all_to_all ? 0.0 : simple_lower_bound_s(batch_, cluster_, cost_);
    if (close(bound, simple)) return;
    std::string expected = shown(simple);
    if (!all_to_all) {
      const double tighter = tighter_lower_bound_s(batch_, cluster_, cost_);
      if (close(bound, tighter)) return;
      expected += " (the simple bound) or " + shown(tighter) + " (the tighter one)";
    }
    violation("predicted.lower_bound_s is " + shown(bound) + ", expected " + expected);
  }

  const Plan& plan_;
  const Batch& batch_;
  const Cluster& cluster_;
  const CostModel& cost_;
  static constexpr std::size_t kNoTask = static_cast<std::size_t>(-1);
  std::vector<std::pair<std::int64_t, std::size_t>> positions_;  // ids and positions in the batch, by id
  std::vector<std::size_t> task_of_;                             // by position: the first task that has it
  std::size_t ranks_ = 0;                                        // of the plan
  std::vector<Rank> outside_;                                    // ranks that tasks name and the plan lacks, rising
  std::vector<std::size_t> last_task_of_;  // by slot_of(rank): the last task looked at that has it
  bool timed_ = true;                      // no violation so far that leaves the times without a meaning
  std::vector<double> durations_;
  std::vector<std::string> violations_;
};

}  // namespace

std::vector<std::string> check_plan(const Plan& plan, const Batch& batch, const Cluster& cluster,
                                    const CostModel& cost) {
  require_ranks(cluster);
  validate(batch, "batch");
  return Checker(plan, batch, cluster, cost).run();
}

}  // namespace dhp
