#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/index.h"
#include "dhp/planner.h"

namespace dhp::plan {

/// What options, cluster and cost model allow, worked out once for all planners.
///
/// Groups that must stay inside a node or meet few peers are kept inside *blocks*: aligned runs of ranks in service
/// that no group leaves. A block of b ranks gives every rank at most b - 1 peers, however many tasks it runs.
class Limits {
 public:
  /// `exchanges` are what the planner uses where the options name none.
  Limits(const Cluster& cluster, const CostModel& cost, const PlanOptions& options,
         std::span<const Exchange> exchanges);

  const Cluster& cluster() const { return *cluster_; }
  const CostModel& cost() const { return *cost_; }

  /// Ranks in service, ascending. Planners count ranks by their position here.
  const std::vector<Rank>& live() const { return live_; }
  int ranks() const { return static_cast<int>(live_.size()); }
  /// Begin of every block as a position in live(), and ranks() at the end; one block where groups are not confined.
  const std::vector<int>& block_begins() const { return block_begins_; }
  bool confined() const { return block_begins_.size() > 2; }
  bool consecutive() const { return consecutive_; }

  int widest() const { return widest_; }  ///< largest degree allowed; 0 without ranks in service
  bool allows(int degree) const { return degree >= 1 && degree <= widest_ && next_allowed_[index(degree)] == degree; }
  /// The smallest degree allowed that is at least `degree`; 0 if there is none.
  int next_allowed(int degree) const { return degree > widest_ ? 0 : next_allowed_[index(degree)]; }

  double budget_bytes() const { return budget_bytes_; }
  /// Whether memory and the cap on tokens hold the load on `degree` ranks.
  bool fits(const Load& load, int degree) const {
    return task_memory_bytes(*cost_, load, degree) <= budget_bytes_ &&
           load.tokens <= static_cast<double>(degree) * tokens_per_rank_;
  }
  double tokens_per_rank() const { return tokens_per_rank_; }  ///< infinite without a cap
  /// The smallest degree allowed that holds the sequence; 0 if there is none.
  int min_degree(const Sequence& sequence) const;
  /// The largest degree that shards of min_shard_tokens allow; at least `min_degree`.
  int max_degree(const Sequence& sequence, int min_degree) const;

  const std::vector<Exchange>& exchanges() const { return exchanges_; }  ///< that groups may use
  /// The quickest exchange allowed for a group of this shape; ring for a single rank.
  Exchange exchange_for(const GroupShape& shape) const;
  /// The shape of `degree` consecutive ranks in service beginning at position `first`.
  GroupShape consecutive_shape(int first, int degree) const;
  std::vector<Rank> consecutive_ranks(int first, int degree) const;

  /// Why no plan with groups of at most `widest` ranks holds the batch; nothing if one does. Names the sequence that
  /// needs most. An empty batch is always feasible.
  std::optional<Infeasible> find_infeasible(const Batch& batch, int widest) const;
  std::optional<Infeasible> find_infeasible(const Batch& batch) const { return find_infeasible(batch, widest_); }

  /// Why no sequence at all can be planned: an answer without `sequence`; nothing where some can.
  std::optional<Infeasible> find_nothing_fits() const;
  /// Whether groups of at most `widest` ranks hold the sequence.
  bool holds(const Sequence& sequence, int widest) const {
    const int degree = min_degree(sequence);
    return degree >= 1 && degree <= widest;
  }
  /// Why they do not.
  Infeasible why_not(const Sequence& sequence, int widest) const;

 private:
  void make_blocks(const PlanOptions& options);
  void make_degrees(const PlanOptions& options);

  const Cluster* cluster_;
  const CostModel* cost_;
  std::vector<Rank> live_;
  std::vector<int> block_begins_;
  std::vector<int> next_allowed_;  // by degree, 0 to widest
  std::vector<Exchange> exchanges_;
  int widest_ = 0;
  int min_shard_tokens_ = 1;
  bool consecutive_ = false;
  double budget_bytes_ = 0.0;
  double tokens_per_rank_ = 0.0;
};

}  // namespace dhp::plan
