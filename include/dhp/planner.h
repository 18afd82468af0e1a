#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "dhp/plan.h"

namespace dhp {

/// Which ranks may form a group.
enum class Placement {
  any,          ///< any ranks
  consecutive,  ///< rank, rank + 1, … (ranks out of service are skipped)
};

/// Levels of effort. Effort is counted work, never time, so that every rank plans the same. At 64 ranks and 512
/// sequences they take about 0.7 ms and 6 ms.
inline constexpr std::int64_t kEffortFast = 60;
inline constexpr std::int64_t kEffortDefault = 800;

/// Options that change what is planned. Limits on degrees, ranks and exchanges apply to every planner, the others to
/// those that use them (uses_option()). A batch that needs more than they allow is Infeasible. Names, ranges and help:
/// dhp/plan_options.h.
struct PlanOptions {
  std::string planner = "free";  ///< a name of planners()

  // Which degrees
  int max_degree = 0;                    ///< widest group; 0: all ranks
  std::vector<int> degrees_divide = {};  ///< every degree divides each of these (head counts of the model)
  std::int64_t max_tokens_per_rank = 0;  ///< tokens a rank may hold in a task, whatever memory allows; 0: no cap
  /// No sequence is cut into shards of fewer tokens, unless memory or the cap on tokens requires it. Respected by
  /// paper, free and lockstep; the others have one degree for all, or follow rules of their source that do not include
  /// it.
  int min_shard_tokens = 64;

  // Which ranks
  int max_peers = 0;         ///< distinct ranks that a rank shares tasks with over the whole plan; 0: no limit
  bool within_node = false;  ///< no group spans nodes
  Placement placement = Placement::any;
  /// How shards may travel; the fastest for a group is used. Empty: as in the planner's source: ring for paper and
  /// static, any of ring, direct and hierarchical for free and lockstep.
  std::vector<Exchange> exchanges = {};

  // How hard to try
  std::int64_t effort = kEffortDefault;  ///< of free and lockstep, in thousands of looks at a rank

  // Errors of estimates, of free and lockstep
  /// Sizes of the errors for which the plan is chosen: the least mean makespan under them. Unset: those of the cost
  /// model, else of ErrorSizes{}. All 0: the least makespan.
  std::optional<ErrorSizes> expect_error = {};
  double most_loss = 0.009;  ///< most that the plan gives up for that, as a share of the least makespan; 0 to 1

  /// The plan states the tighter lower bound (bound.h) instead of the simple one; takes about a millisecond more for
  /// 512 sequences on 64 ranks.
  bool tighter_bound = false;

  // Micro-batches: pipeline_stages of lockstep, no_idle_ranks of lockstep, paper and megatron-dynamic
  int pipeline_stages = 1;     ///< p > 1 adds (p - 1) times the slowest micro-batch to what is minimised
  bool no_idle_ranks = false;  ///< every rank in service has a task in every micro-batch
};

/// The batch is well formed, but no plan of this kind can hold it. A result, not an error.
struct Infeasible {
  std::string reason;  ///< "sequence 17 needs 81.2 GiB; 8 ranks offer 79.0 GiB"
  std::optional<std::int64_t> sequence;
  double needed_bytes = 0.0;  ///< tokens if the cost counts those (counts_tokens)
  double offered_bytes = 0.0;
  int needed_ranks = 0;  ///< smallest degree that would hold the sequence, 0 if no number of ranks would
  bool operator==(const Infeasible&) const = default;
};

/// Every way in which a plan violates the options, one sentence per violation. Like check_plan it shares no code with
/// the planners. Checks ranks out of service, degrees, tokens per rank, shards (if options.planner is one that respects
/// min_shard_tokens), peers, nodes, placement, exchanges if the options name any, and idle ranks in lockstep plans. The
/// plan must be valid (check_plan). Invalid parts are skipped, except for what require_shape() refuses.
std::vector<std::string> check_options(const Plan& plan, const Batch& batch, const Cluster& cluster,
                                       const CostModel& cost, const PlanOptions& options);

using PlanResult = std::variant<Plan, Infeasible>;

/// Decides which ranks share which sequences of the batch. A pure function: the same arguments give the same bytes on
/// every rank, run and compiler. The plan is annotated (hash, times, prediction). An empty batch gives an empty plan.
///
///     auto result = plan_batch(read_batch("batch.json"), cluster, cost, {.planner = "paper"});
///     if (auto* plan = std::get_if<Plan>(&result)) std::cout << to_json(*plan);
///
/// Throws InputError for options that make no sense (unknown planner, a degree that does not divide the ranks) and
/// for an invalid batch.
PlanResult plan_batch(const Batch& batch, const Cluster& cluster, const CostModel& cost, const PlanOptions& options);

/// The sequences that no plan of options.planner can hold, whatever else is in the batch, in the order of the batch.
/// They are those for which plan_batch() returns Infeasible when they are alone, except for reasons that only a batch
/// of one has (no_idle_ranks, and rules of Megatron-Core that fill all ranks). If no sequence at all can be planned,
/// one result without `sequence` says why. Takes about 0.1 us per sequence that can be held, so a whole data set can be
/// checked as one batch. Throws as plan_batch() does.
std::vector<Infeasible> infeasible_sequences(const Batch& batch, const Cluster& cluster, const CostModel& cost,
                                             const PlanOptions& options);

/// The first of them, or nothing if there is none.
std::optional<Infeasible> first_infeasible(const Batch& batch, const Cluster& cluster, const CostModel& cost,
                                           const PlanOptions& options);

/// Name and one line of help of every planner, in the order of the help text. add_peers() (peers.h) adds more.
struct PlannerInfo {
  std::string name;
  std::string help;
  bool operator==(const PlannerInfo&) const = default;
};
std::vector<PlannerInfo> planners();

}  // namespace dhp
