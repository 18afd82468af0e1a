#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "dhp/planner.h"
#include "plan/limits.h"

namespace dhp::plan::megatron {

// What the two schedulers of Megatron-Core share. They see lengths in tokens, N ranks (those in service) and one number
// for memory: M, the most tokens that a rank may hold (`max_seqlen_per_dp_cp_rank`). Work is s * s / degree.

struct Sample {
  std::int32_t position = 0;  ///< in the batch
  std::int64_t tokens = 0;
};

/// Consecutive ranks and what they run. Groups fill the ranks from the lowest on, so a round's groups stand in the
/// order of their ranks.
struct Group {
  int degree = 1;
  double load = 0.0;  ///< of each of its ranks
  std::vector<Sample> samples = {};
};

/// Between two barriers: groups on disjoint ranks, the first from rank 0 on.
using Round = std::vector<Group>;

/// Where one of their rules asserts or raises.
struct Stop {
  std::string rule;
};

class Domain {
 public:
  Domain(const Limits& limits, std::int64_t tokens_per_rank) : limits_(&limits), tokens_per_rank_(tokens_per_rank) {}

  const Limits& limits() const { return *limits_; }
  int ranks() const { return limits_->ranks(); }
  std::int64_t tokens_per_rank() const { return tokens_per_rank_; }

  /// The least power of two at which a shard has at most M tokens. Options that exclude it ask for the next power that
  /// they allow. May exceed the ranks.
  int degree_of(std::int64_t tokens) const;
  static double work(std::int64_t tokens, int degree) {
    return static_cast<double>(tokens) * static_cast<double>(tokens) / degree;
  }
  std::string needs_too_many(const Sample& sample) const;

 private:
  const Limits* limits_;
  std::int64_t tokens_per_rank_;
};

/// By falling length, equal ones in order of arrival.
std::vector<Sample> by_length(const Batch& batch);

/// What a fill by doubling did.
enum class Filled { all_ranks, stopped_by_options, no_group_expands };

/// While ranks are empty, the first among the smallest groups gets twice its ranks (N at most) and pushes the groups
/// behind it to the right. It raises where fewer ranks are empty than it takes, but for a group that would reach beyond
/// the last rank itself: then it says so. Loads are not kept up. The round must not be empty.
std::variant<Filled, Stop> fill_by_doubling(const Domain& domain, Round& round);

int used_ranks(const Round& round);

/// One scheduler as a function of what it sees.
using Scheduler = std::variant<std::vector<Round>, Stop> (*)(const Domain& domain,
                                                             const std::vector<Sample>& by_length);

/// Runs the scheduler and turns its rounds into a plan: one task a sample in Schedule::rounds, one task a group in
/// lockstep, where groups are packed. Infeasible where a rule stops it, where Megatron-Core has no communicator for a
/// group, or where options are broken.
///
/// M is `argument`, or the best by prediction of five: what memory surely holds, and 1/2, 1/4, 1/8 and 1/16 of it.
/// Their cap counts tokens alone, ours bytes, so the sequence with most bytes a token decides what memory holds.
PlanResult plan_with(Scheduler scheduler, Schedule schedule, const Batch& batch, const Limits& limits,
                     const PlanOptions& options, std::optional<int> argument);

}  // namespace dhp::plan::megatron
