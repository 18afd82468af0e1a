#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "dhp/plan.h"

namespace dhp {

/// Options that change what is planned. Effort is counted work, never time.
struct PlanOptions {
  /// "paper", "static" (best degree) or "static:CP".
  std::string schedule = "paper";
  /// No sequence is cut into shards of fewer tokens, unless its memory asks for it. `static` does not look at it: there
  /// one degree serves all.
  int min_shard_tokens = 64;
};

/// The batch is well formed, but no plan of this kind holds it. An answer, not an error.
struct Infeasible {
  std::string reason;  ///< "sequence 17 needs 81.2 GiB; 8 ranks offer 79.0 GiB"
  std::optional<std::int64_t> sequence;
  double needed_bytes = 0.0;
  double offered_bytes = 0.0;
  int needed_ranks = 0;  ///< smallest degree that would hold the sequence, 0 when no number of ranks would
};

using PlanResult = std::variant<Plan, Infeasible>;

/// Decides which ranks share which sequences of the batch. A pure function: the same arguments give the same bytes on
/// every rank, run and compiler. The plan is annotated (hash, times, prediction). An empty batch gives an empty plan.
///
///     auto result = plan_batch(read_batch("batch.json"), cluster, cost, {.schedule = "paper"});
///     if (auto* plan = std::get_if<Plan>(&result)) std::cout << to_json(*plan);
///
/// Throws InputError for options that make no sense (unknown schedule, a degree that does not divide the ranks) and
/// for an invalid batch.
PlanResult plan_batch(const Batch& batch, const Cluster& cluster, const CostModel& cost, const PlanOptions& options);

/// Name and one line of help of every planner, in the order of the help text.
struct PlannerInfo {
  std::string name;
  std::string help;
};
const std::vector<PlannerInfo>& planners();

}  // namespace dhp
