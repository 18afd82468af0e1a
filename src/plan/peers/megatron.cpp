#include "plan/peers/megatron.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <queue>
#include <set>
#include <span>
#include <utility>

#include "base/number_limits.h"
#include "plan/peers/peers.h"

namespace dhp::plan::megatron {
namespace {

Infeasible because(const std::string& reason) { return {.reason = reason, .sequence = {}}; }

std::string odd_ranks(const Limits& limits) {
  return "it asserts an even number of ranks; " + std::to_string(limits.ranks()) + " are in service";
}

std::string too_full(std::int64_t tokens, std::int64_t most) {
  return std::to_string(tokens) + " tokens do not surely fit a rank: by the sequence with most bytes a token, and by " +
         "the cap, it holds " + std::to_string(most);
}

/// Communicators are made at start: slices of 1, 2, 4 … below N (where N is no power of two, not even the largest of
/// those), and all N ranks. Slices of d begin at multiples of d.
std::optional<std::string> find_no_communicator(const Domain& domain, int first, int degree) {
  const int ranks = domain.ranks();
  if (degree == 1 || degree == ranks) return std::nullopt;
  int largest = 1;
  while (largest * 4 <= ranks) largest *= 2;
  const std::string group = "a group of ranks " + std::to_string(first) + " to " + std::to_string(first + degree - 1);
  if (degree > largest || (degree & (degree - 1)) != 0) {
    return group + ", for which the lookup of groups raises: sizes 1 to " + std::to_string(largest) + " and " +
           std::to_string(ranks) + " exist";
  }
  if (first % degree != 0) return group + ", which have no communicator: slices begin at multiples of their size";
  return std::nullopt;
}

/// One task a sample or, where groups are packed, one a group.
std::vector<Task> tasks_of(const Batch& batch, const Limits& limits, const Group& group, int first, bool packed) {
  const GroupShape shape = limits.consecutive_shape(first, group.degree);
  Task task;
  task.ranks = limits.consecutive_ranks(first, group.degree);
  task.exchange = limits.exchange_for(shape);
  std::vector<Task> tasks;
  for (const Sample& sample : group.samples) {
    if (tasks.empty() || !packed) tasks.push_back(task);
    tasks.back().sequences.push_back(batch.sequences[static_cast<std::size_t>(sample.position)].id);
  }
  return tasks;
}

bool fits(const Batch& batch, const Limits& limits, const Group& group, bool packed) {
  Load load;
  for (const Sample& sample : group.samples) {
    if (!packed) load = {};
    load.add(batch.sequences[static_cast<std::size_t>(sample.position)]);
    if (!limits.fits(load, group.degree)) return false;
  }
  return true;
}

bool all_fit(const Batch& batch, const Limits& limits, const std::vector<Round>& rounds, bool packed) {
  return std::all_of(rounds.begin(), rounds.end(), [&](const Round& round) {
    return std::all_of(round.begin(), round.end(),
                       [&](const Group& group) { return fits(batch, limits, group, packed); });
  });
}

/// The option that the groups break; they know none of these rules.
std::optional<std::string> find_broken_option(const Plan& plan, const Limits& limits, const PlanOptions& options) {
  const Cluster& cluster = limits.cluster();
  std::vector<std::set<Rank>> met(static_cast<std::size_t>(cluster.ranks()));
  for (const Task& task : plan.tasks) {
    const std::string group =
        "its group of ranks " + std::to_string(task.ranks.front()) + " to " + std::to_string(task.ranks.back());
    if (options.within_node && cluster.node_of(task.ranks.front()) != cluster.node_of(task.ranks.back())) {
      return group + " spans nodes";
    }
    if (options.max_peers == 0) continue;
    for (const Rank rank : task.ranks) {
      std::set<Rank>& peers = met[static_cast<std::size_t>(rank)];
      peers.insert(task.ranks.begin(), task.ranks.end());
      if (std::ssize(peers) - 1 > options.max_peers) {
        return group + " gives rank " + std::to_string(rank) + " more than " + std::to_string(options.max_peers) +
               " peers";
      }
    }
  }
  return std::nullopt;
}

PlanResult to_plan(const std::vector<Round>& rounds, bool packed, const Batch& batch, const Domain& domain,
                   const PlanOptions& options) {
  Plan plan;
  for (std::size_t number = 0; number < rounds.size(); ++number) {
    int first = 0;
    if (options.no_idle_ranks && packed && used_ranks(rounds[number]) < domain.ranks()) {
      return because("micro-batch " + std::to_string(number) + " leaves ranks idle: the options allow no wider groups");
    }
    for (const Group& group : rounds[number]) {
      if (const auto missing = find_no_communicator(domain, first, group.degree)) {
        return because("its rules ask for " + *missing);
      }
      for (Task& task : tasks_of(batch, domain.limits(), group, first, packed)) {
        task.id = static_cast<int>(plan.tasks.size());
        task.micro_batch = static_cast<int>(number);
        plan.tasks.push_back(std::move(task));
      }
      first += group.degree;
    }
  }
  plan.planner =
      std::string(packed ? "megatron-dynamic:" : "megatron-hybrid:") + std::to_string(domain.tokens_per_rank());
  if (const auto broken = find_broken_option(plan, domain.limits(), options)) return because(*broken);
  return plan;
}

/// The largest M with which every plan keeps the memory of the ranks, and the options' cap; below 1 if no token fits.
std::int64_t tokens_per_rank(std::span<const Sequence> sequences, const Limits& limits) {
  double most = static_cast<double>(kMaxTokens);
  most = std::min(most, limits.tokens_per_rank());
  for (const Sequence& sequence : sequences) {
    const double bytes = task_memory_bytes(limits.cost(), load_of(std::span(&sequence, 1)), 1);
    if (bytes > 0.0) most = std::min(most, limits.budget_bytes() * static_cast<double>(sequence.tokens) / bytes);
  }
  return static_cast<std::int64_t>(most);
}

struct Setting {
  Scheduler scheduler;
  Schedule schedule;
  const Batch& batch;
  const Limits& limits;
  const PlanOptions& options;
};

PlanResult plan_at(const Setting& setting, std::int64_t tokens_per_rank) {
  const bool packed = setting.schedule == Schedule::lockstep;
  // The loop is for rounding: a group that is full to the last bit may break memory after all.
  for (std::int64_t tokens = tokens_per_rank; tokens >= 1; --tokens) {
    const Domain domain(setting.limits, tokens);
    const auto result = setting.scheduler(domain, by_length(setting.batch));
    if (const Stop* stop = std::get_if<Stop>(&result)) return because(stop->rule);
    const auto& rounds = std::get<std::vector<Round>>(result);
    if (!all_fit(setting.batch, setting.limits, rounds, packed)) continue;
    return to_plan(rounds, packed, setting.batch, domain, setting.options);
  }
  return because("a rank holds less than one token of the sequence with most bytes a token");
}

double makespan(PlanResult& result, const Setting& setting) {
  Plan* plan = std::get_if<Plan>(&result);
  if (plan == nullptr) return kInfinity;
  plan->schedule = setting.schedule;
  plan->ranks = setting.limits.cluster().ranks();
  const Limits& limits = setting.limits;
  return replay(*plan, predict_task_seconds(*plan, setting.batch, limits.cluster(), limits.cost())).makespan_s;
}

}  // namespace

int Domain::degree_of(std::int64_t tokens) const {
  std::int64_t degree = 1;
  while (degree * tokens_per_rank_ < tokens) degree *= 2;
  while (degree <= ranks() && !limits_->allows(static_cast<int>(degree))) degree *= 2;
  return static_cast<int>(std::min<std::int64_t>(degree, std::numeric_limits<int>::max()));
}

std::string Domain::needs_too_many(const Sample& sample) const {
  return "a sequence of " + std::to_string(sample.tokens) + " tokens needs degree " +
         std::to_string(degree_of(sample.tokens)) + " at " + std::to_string(tokens_per_rank_) +
         " tokens a rank, of the powers of two that the options allow; there are " + std::to_string(ranks()) + " ranks";
}

std::vector<Sample> by_length(const Batch& batch) {
  std::vector<Sample> samples;
  for (const Sequence& sequence : batch.sequences) {
    samples.push_back({static_cast<std::int32_t>(samples.size()), sequence.tokens});
  }
  std::stable_sort(samples.begin(), samples.end(),
                   [](const Sample& a, const Sample& b) { return a.tokens > b.tokens; });
  return samples;
}

int used_ranks(const Round& round) {
  int used = 0;
  for (const Group& group : round) used += group.degree;
  return used;
}

namespace {

/// Sums of the ranks of the first groups, while degrees grow: a Fenwick tree.
class RanksBefore {
 public:
  explicit RanksBefore(std::size_t groups) : sums_(groups + 1, 0) {}

  void add(std::size_t group, int ranks) {
    for (std::size_t i = group + 1; i < sums_.size(); i += i & (~i + 1)) sums_[i] += ranks;
  }
  /// Of all groups up to this one.
  int end_of(std::size_t group) const {
    int sum = 0;
    for (std::size_t i = group + 1; i > 0; i -= i & (~i + 1)) sum += sums_[i];
    return sum;
  }

 private:
  std::vector<int> sums_;
};

}  // namespace

std::variant<Filled, Stop> fill_by_doubling(const Domain& domain, Round& round) {
  using Turn = std::pair<int, std::size_t>;  // degree and group: the narrowest on top, of equals the first
  const int ranks = domain.ranks();
  int used = used_ranks(round);
  if (used >= ranks) return Filled::all_ranks;
  std::priority_queue<Turn, std::vector<Turn>, std::greater<>> narrowest;
  RanksBefore before(round.size());
  for (std::size_t i = 0; i < round.size(); ++i) {
    narrowest.emplace(round[i].degree, i);
    before.add(i, round[i].degree);
  }
  while (used < ranks) {
    const std::size_t number = narrowest.top().second;
    Group& group = round[number];
    narrowest.pop();
    const int doubled = std::min(2 * group.degree, ranks);
    if (!domain.limits().allows(doubled)) return Filled::stopped_by_options;
    const int more = doubled - group.degree;
    if (before.end_of(number) + more > ranks) return Filled::no_group_expands;
    if (used + more > ranks) {
      return Stop{"its fill rule raises: doubling a group of " + std::to_string(group.degree) + " ranks needs " +
                  std::to_string(more) + " empty ranks of " + std::to_string(ranks) + ", " +
                  std::to_string(ranks - used) + " are empty"};
    }
    group.degree = doubled;
    narrowest.emplace(doubled, number);
    before.add(number, more);
    used += more;
  }
  return Filled::all_ranks;
}

PlanResult plan_with(Scheduler scheduler, Schedule schedule, const Batch& batch, const Limits& limits,
                     const PlanOptions& options, std::optional<int> argument) {
  if (limits.ranks() % 2 != 0) return because(odd_ranks(limits));
  const Setting setting{scheduler, schedule, batch, limits, options};
  const std::int64_t most = tokens_per_rank(batch.sequences, limits);
  if (argument) return *argument <= most ? plan_at(setting, *argument) : because(too_full(*argument, most));
  PlanResult best = plan_at(setting, most);
  double best_s = makespan(best, setting);
  for (std::int64_t divisor = 2; divisor <= 16; divisor *= 2) {
    PlanResult candidate = plan_at(setting, most / divisor);
    const double seconds = makespan(candidate, setting);
    if (seconds >= best_s) continue;
    best = std::move(candidate);
    best_s = seconds;
  }
  return best;
}

}  // namespace dhp::plan::megatron

namespace dhp::plan {

/// What their rules say of one sequence, whatever is around it: others only lower M, which asks for more ranks.
SequenceCheck check_for_megatron(const Limits& limits, const PlanOptions& /*options*/, std::optional<int> argument) {
  return [&limits, argument](const Sequence& sequence) -> std::optional<Infeasible> {
    using namespace megatron;
    if (limits.ranks() % 2 != 0) return because(odd_ranks(limits));
    const auto not_held = [&](const std::string& reason) {
      return Infeasible{.reason = "sequence " + std::to_string(sequence.id) + ": " + reason, .sequence = sequence.id};
    };
    const std::int64_t most = tokens_per_rank(std::span(&sequence, 1), limits);
    if (most < 1) return not_held("a rank holds less than one token of it");
    if (argument && *argument > most) return not_held(too_full(*argument, most));
    const Domain domain(limits, argument ? *argument : most);
    if (domain.degree_of(sequence.tokens) > limits.ranks())
      return not_held(domain.needs_too_many({0, sequence.tokens}));
    return std::nullopt;
  };
}

}  // namespace dhp::plan
