// Whether a plan keeps its options. Independent of Limits and of the planners: what they keep is derived anew here.
#include <algorithm>
#include <string>
#include <vector>

#include "dhp/plan_options.h"
#include "dhp/planner.h"
#include "formats/sequence_index.h"
#include "formats/shape.h"
#include "plan/check/met_ranks.h"

namespace dhp {
namespace {

class OptionsChecker {
 public:
  OptionsChecker(const Plan& plan, const Batch& batch, const Cluster& cluster, const CostModel& cost,
                 const PlanOptions& options)
      : plan_(plan), cluster_(cluster), cost_(cost), options_(options), sequences_(batch) {
    live_before_.assign(static_cast<std::size_t>(cluster.ranks()), 0);
    for (Rank rank = 0; rank < cluster.ranks(); ++rank) {
      live_before_[static_cast<std::size_t>(rank)] = live_.size();
      if (in_service(rank)) live_.push_back(rank);
    }
  }

  std::vector<std::string> run() {
    for (const Task& task : plan_.tasks) {
      check_degree(task);
      check_tokens(task);
      check_shards(task);
      check_ranks(task);
      check_exchange(task);
    }
    check_peers();
    if (options_.no_idle_ranks && plan_.schedule == Schedule::lockstep) check_idle();
    return std::move(violations_);
  }

 private:
  void violation(const Task& task, const std::string& sentence) {
    violations_.push_back("tasks[" + std::to_string(task.id) + "] " + sentence);
  }

  bool in_service(Rank rank) const {
    return cluster_.rank_speed.empty() || cluster_.rank_speed[static_cast<std::size_t>(rank)] > 0.0;
  }

  bool keeps_shards() const {
    const std::string name = options_.planner.substr(0, options_.planner.find(':'));
    return name == "paper" || name == "free" || name == "lockstep";
  }

  bool divides_all(int degree) const {
    return std::none_of(options_.degrees_divide.begin(), options_.degrees_divide.end(),
                        [&](int number) { return number % degree != 0; });
  }

  void check_degree(const Task& task) {
    if (options_.max_degree > 0 && task.degree() > options_.max_degree) {
      violation(task, "has " + std::to_string(task.degree()) + " ranks, more than the " +
                          std::to_string(options_.max_degree) + " of max_degree");
    }
    for (const int number : options_.degrees_divide) {
      if (number % task.degree() == 0) continue;
      violation(task, "has " + std::to_string(task.degree()) + " ranks, which do not divide " + std::to_string(number) +
                          " (degrees_divide)");
    }
  }

  void check_tokens(const Task& task) {
    if (options_.max_tokens_per_rank == 0) return;
    std::int64_t tokens = 0;
    for (const std::int64_t id : task.sequences) {
      if (const Sequence* found = sequences_.find(id); found != nullptr) tokens += found->tokens;
    }
    if (tokens <= options_.max_tokens_per_rank * task.degree()) return;
    violation(task, "has " + std::to_string(tokens) + " tokens on " + std::to_string(task.degree()) +
                        " ranks, beyond max_tokens_per_rank " + std::to_string(options_.max_tokens_per_rank));
  }

  /// The smallest degree allowed that holds the sequence alone; 0 if there is none.
  int least_degree(const Sequence& sequence) const {
    const double bytes = static_cast<double>(sequence.tokens) * cost_.token_bytes +
                         static_cast<double>(sequence.patches) * cost_.patch_bytes;
    for (int degree = 1; degree <= static_cast<int>(live_.size()); ++degree) {
      const bool capped = options_.max_tokens_per_rank > 0 && sequence.tokens > options_.max_tokens_per_rank * degree;
      if (divides_all(degree) && !capped && bytes / degree <= cluster_.memory_bytes - cost_.state_bytes) return degree;
    }
    return 0;
  }

  void check_shards(const Task& task) {
    if (!keeps_shards()) return;
    for (const std::int64_t id : task.sequences) {
      const Sequence* found = sequences_.find(id);
      if (found == nullptr) continue;
      const Sequence& sequence = *found;
      if (task.degree() <= sequence.tokens / options_.min_shard_tokens) continue;
      if (task.degree() <= least_degree(sequence)) continue;
      violation(task, "cuts the " + std::to_string(sequence.tokens) + " tokens of sequence " + std::to_string(id) +
                          " over " + std::to_string(task.degree()) + " ranks, below min_shard_tokens " +
                          std::to_string(options_.min_shard_tokens));
    }
  }

  void check_ranks(const Task& task) {
    bool spans = false;
    for (const Rank rank : task.ranks) {
      spans = spans || rank / cluster_.ranks_per_node != task.ranks.front() / cluster_.ranks_per_node;
      if (!in_service(rank)) violation(task, "has rank " + std::to_string(rank) + ", which is out of service");
    }
    if (options_.within_node && spans) violation(task, "spans nodes, against within_node");
    if (options_.placement != Placement::consecutive) return;
    const std::size_t first = live_before_[static_cast<std::size_t>(task.ranks.front())];
    const bool has_room = first + task.ranks.size() <= live_.size();
    if (!has_room ||
        !std::equal(task.ranks.begin(), task.ranks.end(), live_.begin() + static_cast<std::ptrdiff_t>(first))) {
      violation(task, "is not on consecutive ranks in service, in rising order");
    }
  }

  void check_exchange(const Task& task) {
    const std::vector<Exchange>& allowed = options_.exchanges;
    if (allowed.empty() || task.degree() == 1) return;
    if (std::find(allowed.begin(), allowed.end(), task.exchange) != allowed.end()) return;
    violation(task,
              "uses the exchange " + std::string(to_string(task.exchange)) + ", which is not among those allowed");
  }

  void check_peers() {
    if (options_.max_peers == 0) return;
    const auto slot_of = [](Rank rank) { return static_cast<std::size_t>(rank); };
    Rank rank = 0;
    for (const std::ptrdiff_t peers : count_met_ranks(plan_, live_before_.size(), slot_of)) {
      if (peers > options_.max_peers) {
        violations_.push_back("rank " + std::to_string(rank) + " shares tasks with " + std::to_string(peers) +
                              " ranks, more than the " + std::to_string(options_.max_peers) + " of max_peers");
      }
      ++rank;
    }
  }

  void check_idle() {
    const std::vector<std::size_t> order = tasks_by_micro_batch(plan_);
    std::vector<int> busy_in(live_before_.size(), -1);  // by rank: its last micro-batch so far
    for (auto i = order.begin(); i != order.end();) {
      const int micro_batch = plan_.tasks[*i].micro_batch;
      for (; i != order.end() && plan_.tasks[*i].micro_batch == micro_batch; ++i) {
        for (const Rank rank : plan_.tasks[*i].ranks) busy_in[static_cast<std::size_t>(rank)] = micro_batch;
      }
      for (const Rank rank : live_) {
        if (busy_in[static_cast<std::size_t>(rank)] == micro_batch) continue;
        violations_.push_back("rank " + std::to_string(rank) + " has no task in micro_batch " +
                              std::to_string(micro_batch) + ", against no_idle_ranks");
      }
    }
  }

  const Plan& plan_;
  const Cluster& cluster_;
  const CostModel& cost_;
  const PlanOptions& options_;
  SequenceIndex sequences_;
  std::vector<Rank> live_;
  std::vector<std::size_t> live_before_;  // by rank: how many ranks in service come before it
  std::vector<std::string> violations_;
};

}  // namespace

std::vector<std::string> check_options(const Plan& plan, const Batch& batch, const Cluster& cluster,
                                       const CostModel& cost, const PlanOptions& options) {
  require_shape(plan, cluster);
  validate(options);
  return OptionsChecker(plan, batch, cluster, cost, options).run();
}

}  // namespace dhp
