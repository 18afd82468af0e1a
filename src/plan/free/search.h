#pragma once

#include <cstdint>
#include <vector>

#include "base/index.h"
#include "plan/search/alone_filler.h"
#include "plan/search/group_placer.h"

namespace dhp::plan {

/// Which items get which degree, and the order in which groups are placed. Everything else follows from it.
struct FreeCandidate {
  std::vector<int> degrees;         ///< one an item
  std::vector<std::int32_t> order;  ///< items with a degree above 1, first placed first
  double target_s = 0.0;            ///< makespan aimed at
  int kind = 0;                     ///< of the seed that it comes from
};

/// Searches the plan of one cell: candidates by rule first, then changes of the best one.
class CellSearch {
 public:
  /// `items` by falling alone_s. `bound_s` is a makespan that no plan of the cell beats.
  CellSearch(const FreeCell& cell, std::vector<SearchItem> items, double bound_s);

  /// Candidates by rule: so many kinds, the same for every cell.
  static constexpr int kKinds = 27;
  /// Tries the candidate of one kind, which serves other cells best: search() then tries one more and turns to changes.
  /// Ends need not be level before `enough_s`.
  void try_kind(int kind, double enough_s);
  /// Tries the candidates of all kinds, the most promising first, then changes of the best one, until `ticks` are used
  /// up (see ticks()) or nothing is left to win. May be called again to go on.
  void search(std::int64_t ticks);
  /// Whether search() could still find something.
  bool finished() const { return finished_; }
  int best_kind() const { return best_.kind; }

  std::int64_t ticks() const { return ticks_ + placer_.ticks() + filler_.ticks(); }
  double makespan_s() const { return best_s_; }
  double bound_s() const { return bound_s_; }
  const FreeCell& cell() const { return cell_; }
  const std::vector<SearchItem>& items() const { return items_; }

  /// The tasks of the best candidate, by start, without ids.
  void append_to(std::vector<Task>& tasks);

 private:
  static constexpr std::uint64_t kReliefs = 4;
  void make_seeds();
  FreeCandidate seed(int kind) const;
  int degree_within(std::size_t item, double longest_task_s) const;
  int round_degree(int degree, int rounding, const SearchItem& item) const;
  double floor_s(const FreeCandidate& candidate) const;
  void sort_order(FreeCandidate& candidate) const;
  void try_candidate(const FreeCandidate& candidate, double enough_s);
  double build(const FreeCandidate& candidate, double limit_s, double enough_s);
  FreeCandidate changed();
  void change_degree(FreeCandidate& candidate);
  void relieve_last(FreeCandidate& candidate, std::uint64_t way) const;
  void set_degree(FreeCandidate& candidate, std::int32_t index, int degree) const;
  std::int32_t find_last_item() const;
  std::uint64_t random(std::uint64_t below);

  const FreeCell& cell_;
  std::vector<SearchItem> items_;
  double bound_s_;
  std::vector<double> least_s_;  // seconds of each item at its smallest degree
  double longest_least_s_ = 0.0;
  std::vector<FreeCandidate> seeds_;  // by falling promise
  std::size_t next_seed_ = 0;
  std::size_t most_seeds_ = kKinds;  // that are tried
  std::uint64_t changes_ = 0;        // counter of the random numbers
  FreeCandidate best_;
  double best_s_;
  double enough_s_ = 0.0;  // to which its ends were levelled
  bool seeded_ = false;
  bool finished_ = false;
  bool best_is_built_ = false;  // placer and filler hold the best candidate
  GroupPlacer placer_;
  AloneFiller filler_;
  std::vector<std::int32_t> alone_;
  std::uint64_t reliefs_tried_ = 0;  // of the best candidate
  std::int32_t last_item_ = -1;      // of the best candidate
  std::int64_t ticks_ = 0;
};

}  // namespace dhp::plan
