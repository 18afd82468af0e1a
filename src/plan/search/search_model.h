#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "plan/limits.h"

namespace dhp::plan {

// What the planner `free` computes with: sequences, ranks and task times in a form that is evaluated in a few
// operations. Times equal those of task_seconds() to rounding; the finished plan is timed by task_seconds() itself.

/// A sequence, or several that run together.
struct SearchItem {
  double tokens = 0.0;
  double patches = 0.0;
  double linear_s = 0.0;  ///< work per token, and vision, both passes, on one rank
  VisionSeconds vision = {};
  double pair_s[2] = {0.0, 0.0};  ///< causal attention on one rank: forward, backward
  double alone_s = 0.0;           ///< on one rank, without what a task costs whatever is in it
  double longest = 0.0;           ///< tokens of the longest sequence
  int sequences = 1;
  int min_degree = 1;   ///< smallest allowed degree that holds it
  int max_degree = 1;   ///< largest by the shortest shard
  std::int64_t id = 0;  ///< of the sequence

  /// Adds what runs with it. Its memory is not looked at.
  void add(const SearchItem& other);
};

/// What the transfers of a group cost.
struct Transfer {
  double latency_s = 0.0;          ///< of all transfers of one pass
  double token_s[2] = {0.0, 0.0};  ///< of all transfers, per token of the task: forward, backward
  Exchange exchange = Exchange::ring;
};

/// Task times of one cost model on one cluster.
class SearchModel {
 public:
  explicit SearchModel(const Limits& limits);

  const Limits& limits() const { return *limits_; }
  SearchItem item(const Sequence& sequence) const;
  Transfer transfer(const GroupShape& shape) const;

  /// What a task on one nominal rank takes besides the alone_s of its items.
  double pack_s() const { return pack_s_; }
  /// Seconds of a task of this item alone.
  double seconds(const SearchItem& item, int degree, const Transfer& transfer, double speed) const;
  /// Whether a rank holds a task with these sums; the arithmetic that validity uses.
  bool holds(double tokens, double patches) const {
    return tokens * token_bytes_ + patches * patch_bytes_ <= budget_bytes_ && tokens <= tokens_per_rank_;
  }
  /// The same for `degree` ranks.
  bool holds(double tokens, double patches, int degree) const {
    return (tokens * token_bytes_ + patches * patch_bytes_) / degree <= budget_bytes_ &&
           tokens <= degree * tokens_per_rank_;
  }
  /// Memory in budgets of a rank.
  double need(const SearchItem& item) const {
    return (item.tokens * token_bytes_ + item.patches * patch_bytes_) / budget_bytes_;
  }

 private:
  const Limits* limits_;
  double task_s_ = 0.0;
  double token_s_ = 0.0;
  double pair_s_[2] = {};
  double step_s_[2] = {};
  double sequence_step_s_[2] = {};
  double bytes_per_token_[2] = {};
  double pack_s_ = 0.0;
  double token_bytes_ = 0.0;
  double patch_bytes_ = 0.0;
  double budget_bytes_ = 0.0;
  double tokens_per_rank_ = 0.0;
};

/// The items of a batch by falling work, ties by id: plans do not depend on the order of the batch.
std::vector<SearchItem> sorted_items(const Batch& batch, const SearchModel& model);

/// Ranks of one node inside one block. Ranks of a cell are numbered from 0.
struct Pool {
  int begin = 0;
  int end = 0;

  int size() const { return end - begin; }
};

/// Pools among which a group may choose.
struct PoolRange {
  int begin = 0;
  int end = 0;
  int ranks = 0;
};

/// Ranks, or bins, that run tasks one after the other.
struct Lanes {
  std::vector<double> speed = {};
  bool uniform = true;  ///< all speeds are equal
  double total_speed = 0.0;

  int count() const { return static_cast<int>(speed.size()); }
};

/// Ranks that are planned together: consecutive positions of Limits::live(), whole blocks of them where groups are
/// confined to blocks.
class FreeCell {
 public:
  FreeCell(const SearchModel& model, int first_position, int ranks);

  const SearchModel& model() const { return *model_; }
  int first_position() const { return first_position_; }
  int ranks() const { return ranks_; }
  const std::vector<Pool>& pools() const { return pools_; }
  const std::vector<PoolRange>& blocks() const { return blocks_; }
  int pool_of(int rank) const { return pool_of_[static_cast<std::size_t>(rank)]; }
  int block_of(int pool) const { return block_of_[static_cast<std::size_t>(pool)]; }
  /// Shape of a group of ranks of the cell.
  GroupShape shape(std::span<const int> ranks) const;
  int largest_pool() const { return largest_pool_; }
  /// Largest degree that fits a block of the cell and that the limits allow.
  int widest() const { return widest_; }

  const Lanes& lanes() const { return lanes_; }
  double speed(int rank) const { return lanes_.speed[static_cast<std::size_t>(rank)]; }
  double top_speed() const { return top_speed_; }
  double total_speed() const { return lanes_.total_speed; }
  bool uniform() const { return lanes_.uniform; }
  /// Speeds, falling, few: a group that is not to be slowed down chooses among ranks of at least one of these.
  const std::vector<double>& speed_steps() const { return speed_steps_; }

  /// Of a degree at its best: in one node where it fits one, else spread evenly over the fewest nodes.
  const Transfer& best_transfer(int degree) const { return best_[static_cast<std::size_t>(degree)]; }
  int fewest_nodes(int degree) const { return (degree + largest_pool_ - 1) / largest_pool_; }
  double best_seconds(const SearchItem& item, int degree) const {
    return model_->seconds(item, degree, best_transfer(degree), top_speed_);
  }

 private:
  void find_pools();
  void find_speeds();

  const SearchModel* model_;
  int first_position_;
  int ranks_;
  std::vector<Pool> pools_;
  std::vector<PoolRange> blocks_;
  std::vector<int> pool_of_;   // by rank
  std::vector<int> block_of_;  // by pool
  Lanes lanes_;
  std::vector<double> speed_steps_;
  std::vector<Transfer> best_;  // by degree
  int largest_pool_ = 0;
  int widest_ = 0;
  double top_speed_ = 0.0;
  mutable std::vector<int> members_;  // by pool, of the group at hand; 0 between calls
};

}  // namespace dhp::plan
