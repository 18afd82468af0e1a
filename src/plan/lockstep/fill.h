#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/index.h"
#include "plan/search/group_placer.h"
#include "plan/search/search_model.h"

namespace dhp::plan {

/// Sequences that share a group in one micro-batch.
struct LockGroup {
  SearchItem load;              ///< all of them together
  std::vector<int> ranks = {};  ///< of the cell
  GroupShape shape = {};        ///< of these ranks, with pools for nodes
  Transfer transfer = {};       ///< of these ranks
  double speed = 1.0;           ///< of the slowest of them
  double seconds = 0.0;
  std::vector<std::int32_t> items = {};  ///< positions in the sorted items

  int degree() const { return static_cast<int>(ranks.size()); }
};

struct MicroBatch {
  std::vector<LockGroup> groups = {};
  double seconds = 0.0;  ///< of the slowest group
  double work_s = 0.0;   ///< rank time that its items take at the very least
  int idle_ranks = 0;
};

using MicroBatches = std::vector<MicroBatch>;

/// The items that are not yet in a micro-batch, by falling alone_s.
class LeftItems {
 public:
  explicit LeftItems(std::size_t count);

  /// The first position at or after this one that is left; count() if there is none.
  int next(int position);
  void take(int position) { next_[static_cast<std::size_t>(position)] = position + 1; }
  int count() const { return static_cast<int>(next_.size()) - 1; }
  bool empty() { return next(0) == count(); }

 private:
  std::vector<std::int32_t> next_;
};

/// Makes one micro-batch after the other of items.
///
/// The longest item comes first, on as few ranks as let it end by the target. Groups that fit a node stay inside one,
/// wider ones take whole nodes. Shorter items ride along as far as time and memory of the group allow. Ranks that are
/// left over join the slowest group that they make quicker.
class MicroBatchFiller {
 public:
  /// `items` by falling alone_s. Both must outlive the filler. `no_idle_ranks`: ranks join a group even where that
  /// makes it slower.
  MicroBatchFiller(const FreeCell& cell, std::span<const SearchItem> items, bool no_idle_ranks);

  /// Takes at least one of the items that are left.
  MicroBatch fill(LeftItems& left, double target_s);

  /// Work done since construction, in the unit of GroupPlacer::ticks().
  std::int64_t ticks() const { return ticks_; }

  /// Lets ranks without a group join one, and sums up the micro-batch.
  void complete(MicroBatch& micro_batch);

  bool fits(const SearchItem& load, int degree) const { return cell_.model().holds(load.tokens, load.patches, degree); }
  /// Finds shape, transfer, speed and seconds of the group's ranks.
  void settle(LockGroup& group) const;

 private:
  void settle_transfer(LockGroup& group) const;
  int degree_within(const SearchItem& item, double target_s) const;
  bool find_ranks(const SearchItem& item, int degree, LockGroup& group);
  bool take_from_pool(int degree, LockGroup& group);
  void fill_groups(LeftItems& left, double target_s, MicroBatch& micro_batch);
  std::vector<int> set_slow_aside();
  /// Items that are left although slow ranks have come to them.
  struct Rejected {
    int end = 0;  ///< behind the last of them
    std::int64_t count = 0;
  };
  void fill_slow_rank(int rank, LeftItems& left, double target_s, MicroBatch& micro_batch, Rejected& rejected) const;
  bool is_whole(int pool) const { return std::ssize(free_[index(pool)]) == cell_.pools()[index(pool)].size(); }
  void index_pools();
  std::vector<int> whole_pools(const PoolRange& block, int degree);
  bool take_run_of_pools(const PoolRange& block, int degree, LockGroup& group);
  void line_up(MicroBatch& micro_batch) const;
  bool take_whole_pools(const SearchItem& item, int degree, LockGroup& group);
  void take(int pool, int count, LockGroup& group);
  int first_within(LeftItems& left, double room_s, double room) const;
  bool add_rider(LeftItems& left, double target_s, LockGroup& group) const;
  void use_free_ranks(MicroBatch& micro_batch);
  bool grow_somewhere(LockGroup& group, bool even_if_slower);
  bool grow(LockGroup& group, int pool, int count, bool even_if_slower);
  void free_all();

  const FreeCell& cell_;
  std::span<const SearchItem> items_;
  /// What is searched for items that fit, close together: the items are many, and looked at all over.
  struct Size {
    double alone_s = 0.0;
    double need = 0.0;
  };
  std::vector<Size> sizes_;  // one an item
  bool no_idle_ranks_;
  bool consecutive_;
  mutable std::int64_t ticks_ = 0;
  std::vector<std::vector<int>> free_;  // by pool: ranks without a group, the slowest first

  // What finds pools without a look at each of them; see index_pools().
  struct PoolCount {
    int free = 0;
    int pool = 0;
    bool operator<(const PoolCount& other) const { return free != other.free ? free < other.free : pool < other.pool; }
  };
  std::vector<PoolCount> by_count_;  // ascending
  LeftItems whole_;                  // pools all of whose ranks are free
  std::vector<int> pool_size_;       // by block: of its pools, 0 where they differ
};

}  // namespace dhp::plan
