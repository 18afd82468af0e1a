#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/index.h"
#include "plan/search/group_placer.h"

namespace dhp::plan {

/// Items that run together on one rank.
struct AlonePack {
  int rank = 0;
  double start_s = 0.0;   ///< orders the packs of a rank among its groups
  std::size_t first = 0;  ///< in AlonePacks::items
  std::size_t count = 0;
};
struct AlonePacks {
  std::vector<AlonePack> packs = {};
  std::vector<std::int32_t> items = {};
};

/// Deals items of degree 1 to the ranks: into holes before groups first, then behind all groups so that the ranks end
/// at the same time.
class AloneFiller {
 public:
  /// `items` by falling alone_s. All three must outlive the filler. `one_pack`: a rank runs one task only.
  AloneFiller(const SearchModel& model, const Lanes& ranks, std::span<const SearchItem> items, bool one_pack);

  /// `alone` ascending (so by falling alone_s); `ready_s` by rank. Returns the mean end of the ranks, weighted by
  /// speed: no levelling can end all of them earlier. Infinity where one task a rank cannot hold all.
  double fill(std::span<const std::int32_t> alone, std::span<const double> ready_s, std::span<const Hole> holes);

  /// Moves and swaps items between the rank that ends last and others while that helps, at most `steps` times, until
  /// all end by `enough_s`. Returns the last end.
  double level(int steps, double enough_s);

  const std::vector<double>& end_s() const { return end_s_; }
  int last_rank() const { return last_rank_; }
  std::span<const std::int32_t> tail(int rank) const { return tails_[index(rank)].items; }
  AlonePacks packs() const;
  /// Work done since construction, in the unit of GroupPlacer::ticks().
  std::int64_t ticks() const { return ticks_; }

 private:
  struct Room {
    double tokens = 0.0;
    double patches = 0.0;
    std::size_t number = 0;  ///< of the pack, in the order in which a rank's packs were opened
  };
  /// Packs of a rank, the fullest first, of equals the older.
  using Rooms = std::vector<Room>;
  struct Tail {
    double ready_s = 0.0;
    double sum_s = 0.0;  ///< alone_s of its items
    std::vector<std::int32_t> items;
    Rooms packs;  ///< while filling
  };
  /// One item from the last rank to another, perhaps one back.
  struct Move {
    double end_s = 0.0;  ///< of the later of the two, were packs free
    int rank = 0;
    std::int32_t give = 0;
    std::int32_t take = -1;
  };
  void fill_holes(std::span<const std::int32_t> alone, std::vector<Hole>& holes);
  void fill_hole(std::span<const std::int32_t> alone, const Hole& hole);
  int first_that_fits(std::span<const std::int32_t> alone, double room_s, const Room* pack);
  int unplaced_from(int position);
  double add_to_tail(int rank, std::int32_t index);
  bool fill_many_tails(std::span<const std::int32_t> alone);
  bool fill_tails(std::span<const std::int32_t> alone);
  int choose_rank(const SearchItem& item);
  void raise_end(int rank, double end_s);
  double speed(int rank) const { return ranks_.speed[index(rank)]; }
  std::size_t put(Rooms& rooms, const SearchItem& item) const;
  void sort_ranks_by_end();
  bool improve(int last);
  void find_moves(int last, int rank);
  bool apply(int last, const Move& move);
  double end_after(int rank, std::int32_t without, std::int32_t with);
  void move_rank(int rank);

  const SearchModel& model_;
  const Lanes& ranks_;
  std::span<const SearchItem> items_;
  bool one_pack_;
  std::vector<std::int32_t> next_;  // of the items that run alone: the next not yet placed
  std::vector<Hole> holes_;
  AlonePacks in_holes_;
  std::vector<Tail> tails_;    // by rank
  std::vector<double> end_s_;  // by rank
  std::vector<int> heap_;      // ranks, the earliest end first
  std::vector<int> by_end_;    // ranks by rising end
  std::vector<Move> moves_;
  Rooms rooms_;
  double mean_end_s_ = 0.0;
  int last_rank_ = 0;
  std::int64_t ticks_ = 0;
};

}  // namespace dhp::plan
