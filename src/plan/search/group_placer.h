#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/index.h"
#include "plan/search/search_model.h"

namespace dhp::plan {

/// A tick is the planners' unit of work, some nanoseconds: effort is counted, not timed, so that every machine and run
/// gives the same plan. So many count for evaluating the time of one task.
inline constexpr std::int64_t kTicksOfTime = 10;

/// An item on several ranks.
struct FreeGroup {
  std::int32_t item = 0;
  int degree = 1;
  int first_member = 0;  ///< in GroupPlacer::members()
  double start_s = 0.0;
  double end_s = 0.0;
  Exchange exchange = Exchange::ring;
};

/// Idle time of a rank before a group that waits for another rank.
struct Hole {
  int rank = 0;
  double begin_s = 0.0;
  double seconds = 0.0;
};

/// Places groups one by one, each where it wastes least rank time: holes before it, a tail too short for anything that
/// runs alone, slower links than the best, an end beyond the target.
class GroupPlacer {
 public:
  explicit GroupPlacer(const FreeCell& cell);

  /// Forgets all groups. `target_s` is the makespan aimed at; `shortest_s` the least that a task alone takes, 0 if
  /// there is none that could fill a hole.
  void start(double target_s, double shortest_s);
  void place(const SearchItem& item, std::int32_t index, int degree);

  const std::vector<FreeGroup>& groups() const { return groups_; }
  const std::vector<int>& members() const { return members_; }
  const std::vector<Hole>& holes() const { return holes_; }
  const std::vector<double>& ready_s() const { return ready_s_; }
  double last_end_s() const { return last_end_s_; }
  /// Work done since construction: about as many looks at a rank.
  std::int64_t ticks() const { return ticks_; }

 private:
  struct Spot {
    double cost = 0.0;
    double start_s = 0.0;
    double end_s = 0.0;
    Exchange exchange = Exchange::ring;
    bool found = false;
  };

  void consider(const SearchItem& item, std::span<const int> ranks, const Transfer& transfer);
  void try_pools(const SearchItem& item, int degree);
  void try_even(const SearchItem& item, int degree, const PoolRange& block, double least_speed);
  void try_anywhere(const SearchItem& item, int degree, const PoolRange& block, double least_speed);
  std::span<const std::pair<double, int>> ranks_of_block(const PoolRange& block, double least_speed);
  const Transfer& transfer_of(std::span<const int> ranks);
  void try_consecutive(const SearchItem& item, int degree, const PoolRange& block);
  std::span<const int> ready_ranks(const Pool& pool, double least_speed);
  void occupy(std::int32_t item, int degree);
  void sort_in(int rank);

  double waste(double hole_s) const;
  double dead_tail(double tail_s) const;

  const FreeCell& cell_;
  const SearchModel& model_;
  double target_s_ = 0.0;
  double shortest_s_ = 0.0;

  std::vector<FreeGroup> groups_;
  std::vector<int> members_;
  std::vector<Hole> holes_;
  std::vector<double> ready_s_;  // by rank
  std::vector<int> sorted_;      // pool by pool, by ready time
  double last_end_s_ = 0.0;
  std::int64_t ticks_ = 0;

  Spot spot_;  // the best so far
  std::vector<int> spot_ranks_;
  double best_seconds_ = 0.0;  // of the item at its degree in the best place there is
  std::vector<int> filtered_;
  std::vector<int> window_;
  std::vector<std::pair<double, int>> order_;
  std::vector<std::pair<double, int>> all_;    // ranks by ready time as last asked for, where any may join
  std::vector<std::pair<double, int>> moved_;  // of all_: those whose ready time has grown
  std::vector<std::pair<double, int>> kept_;   // the others
  GroupShape last_shape_;                      // most groups have the shape of the one before
  Transfer last_transfer_;
};

}  // namespace dhp::plan
