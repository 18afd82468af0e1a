#pragma once

#include <set>
#include <span>
#include <utility>
#include <vector>

#include "base/index.h"
#include "plan/search/search_model.h"

namespace dhp::plan {

/// Finds the bin where an item would end first, of those that hold it, without a look at all of them. Ends may be
/// equal, then the bin of the lowest number comes first. Where there are many speeds, bins of nearly one speed are as
/// if they had the same: of them the one that is ready first is found.
class IdleBins {
 public:
  /// `one_pack`: a bin holds what fits together; else anything. Bins are empty.
  IdleBins(const SearchModel& model, const Lanes& bins, std::span<const double> end_s, bool one_pack);

  int find(const SearchItem& item) const;  ///< -1: none holds it
  void put(int bin, const SearchItem& item, double end_s);

 private:
  using Entry = std::pair<double, int>;  // end and bin
  /// Bins of one speed, or nearly.
  struct Kind {
    std::set<Entry> by_end = {};
    std::vector<std::set<Entry>> by_room = {};  // by level of the room left in them
    std::vector<Entry> first = {};              // tree over the levels: the first entry of each half
  };
  struct Bin {
    std::size_t kind = 0;
    double speed = 1.0;
    double end_s = 0.0;
    double tokens = 0.0;
    double patches = 0.0;
  };
  double used(double tokens, double patches) const;
  std::size_t level_of(double room) const;
  bool holds(int bin, const SearchItem& item) const;
  void insert(int bin);
  void erase(int bin);
  void renew(Kind& kind, std::size_t level) const;
  Entry first_in(const Kind& kind, const SearchItem& item) const;
  Entry first_of_all(const Kind& kind, const SearchItem& item) const;

  const SearchModel& model_;
  bool one_pack_;
  std::vector<Kind> kinds_;
  std::vector<Bin> bins_;
};

}  // namespace dhp::plan
