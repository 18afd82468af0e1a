#include "option_rules.h"

#include <algorithm>
#include <map>
#include <set>

namespace dhp::test {
namespace {

int most_ranks_of_a_group(const Case& made) {
  std::map<int, int> live_on_node;
  for (Rank rank = 0; rank < made.cluster.ranks(); ++rank) {
    if (made.cluster.speed_of(rank) > 0.0) ++live_on_node[made.options.within_node ? made.cluster.node_of(rank) : 0];
  }
  int most = 0;
  for (const auto& [node, live] : live_on_node) most = std::max(most, live);
  if (made.options.max_peers > 0) most = std::min(most, made.options.max_peers + 1);
  if (made.options.max_degree > 0) most = std::min(most, made.options.max_degree);
  return most;
}

bool divides_all(int degree, const std::vector<int>& numbers) {
  return std::all_of(numbers.begin(), numbers.end(), [&](int number) { return number % degree == 0; });
}

bool holds(const Case& made, double tokens, double patches, int degree) {
  const double bytes = (tokens * made.cost.token_bytes + patches * made.cost.patch_bytes) / degree;
  const auto cap = static_cast<double>(made.options.max_tokens_per_rank);
  return bytes <= made.cluster.memory_bytes - made.cost.state_bytes && (cap == 0.0 || tokens <= cap * degree);
}

class OptionRules {
 public:
  OptionRules(const Plan& plan, const Case& made) : plan_(plan), made_(made) {
    for (const Sequence& sequence : made.batch.sequences) sequences_[sequence.id] = sequence;
    int position = 0;
    for (Rank rank = 0; rank < made.cluster.ranks(); ++rank) {
      if (made.cluster.speed_of(rank) > 0.0) position_of_[rank] = position++;
    }
  }

  std::vector<BrokenOption> run() {
    std::map<Rank, std::set<Rank>> peers;
    std::map<int, std::set<Rank>> busy;  // by micro-batch
    for (const Task& task : plan_.tasks) {
      check_ranks(task);
      check_degree(task);
      check_sequences(task);
      busy[task.micro_batch].insert(task.ranks.begin(), task.ranks.end());
      for (const Rank rank : task.ranks) peers[rank].insert(task.ranks.begin(), task.ranks.end());
    }
    const PlanOptions& options = made_.options;
    for (const auto& [rank, met] : peers) {
      if (options.max_peers == 0 || std::ssize(met) - 1 <= options.max_peers) continue;
      broken_.push_back(
          {"max_peers", "rank " + std::to_string(rank) + " has " + std::to_string(met.size() - 1) + " peers"});
    }
    for (const auto& [micro_batch, ranks] : busy) {
      const bool idle = options.no_idle_ranks && plan_.schedule == Schedule::lockstep;
      if (idle && ranks.size() < position_of_.size()) {
        broken_.push_back({"no_idle_ranks", "micro-batch " + std::to_string(micro_batch) + " leaves ranks idle"});
      }
    }
    return std::move(broken_);
  }

 private:
  void fail(const Task& task, const char* option, const std::string& what) {
    broken_.push_back({option, "task " + std::to_string(task.id) + " " + what});
  }

  void check_ranks(const Task& task) {
    std::set<int> nodes;
    std::set<int> positions;
    for (const Rank rank : task.ranks) {
      const auto found = position_of_.find(rank);
      if (found == position_of_.end())
        return fail(task, "rank_speed", "has rank " + std::to_string(rank) + ", out of service");
      nodes.insert(made_.cluster.node_of(rank));
      positions.insert(found->second);
    }
    if (made_.options.within_node && nodes.size() > 1) fail(task, "within_node", "spans nodes");
    const bool consecutive = *positions.rbegin() - *positions.begin() + 1 == std::ssize(positions);
    if (made_.options.placement == Placement::consecutive && !consecutive)
      fail(task, "placement", "has ranks that are apart");
  }

  void check_degree(const Task& task) {
    const PlanOptions& options = made_.options;
    if (options.max_degree > 0 && task.degree() > options.max_degree)
      fail(task, "max_degree", "is wider than max_degree");
    if (!divides_all(task.degree(), options.degrees_divide))
      fail(task, "degrees_divide", "has a degree that does not divide");
    const bool listed =
        std::find(options.exchanges.begin(), options.exchanges.end(), task.exchange) != options.exchanges.end();
    if (task.degree() > 1 && !options.exchanges.empty() && !listed)
      fail(task, "exchanges", "uses an exchange that is not listed");
  }

  void check_sequences(const Task& task) {
    double tokens = 0.0;
    double patches = 0.0;
    for (const std::int64_t id : task.sequences) {
      const Sequence& sequence = sequences_[id];
      tokens += static_cast<double>(sequence.tokens);
      patches += static_cast<double>(sequence.patches);
      const bool short_shards =
          sequence.tokens < static_cast<std::int64_t>(made_.options.min_shard_tokens) * task.degree();
      if (task.degree() > 1 && short_shards && task.degree() > least_degree(made_, sequence).value_or(0)) {
        fail(task, "min_shard_tokens", "cuts sequence " + std::to_string(id) + " into shards below min_shard_tokens");
      }
    }
    if (!holds(made_, tokens, patches, task.degree()))
      fail(task, "max_tokens_per_rank", "exceeds memory or max_tokens_per_rank");
  }

  const Plan& plan_;
  const Case& made_;
  std::map<std::int64_t, Sequence> sequences_;
  std::map<Rank, int> position_of_;  // of ranks in service
  std::vector<BrokenOption> broken_;
};

}  // namespace

std::optional<int> least_degree(const Case& made, const Sequence& sequence) {
  for (int degree = 1; degree <= most_ranks_of_a_group(made); ++degree) {
    const bool fits = holds(made, static_cast<double>(sequence.tokens), static_cast<double>(sequence.patches), degree);
    if (fits && divides_all(degree, made.options.degrees_divide)) return degree;
  }
  return std::nullopt;
}

std::optional<std::string> why_infeasible(const Case& made) {
  if (made.batch.sequences.empty()) return std::nullopt;
  if (!(made.cluster.memory_bytes > made.cost.state_bytes)) return "no memory for activations";
  for (const Sequence& sequence : made.batch.sequences) {
    if (!least_degree(made, sequence)) return "sequence " + std::to_string(sequence.id) + " has no degree";
  }
  return std::nullopt;
}

std::vector<BrokenOption> broken_options(const Plan& plan, const Case& made) { return OptionRules(plan, made).run(); }

}  // namespace dhp::test
