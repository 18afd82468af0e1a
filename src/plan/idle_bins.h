#pragma once

#include <set>
#include <span>
#include <utility>
#include <vector>

#include "plan/free_model.h"

namespace dhp {

/// Finds the bin where an item would end first, of those that hold it, without a look at all of them. For many bins of
/// few speeds; ends may be equal, then the bin of the lowest number comes first.
class IdleBins {
 public:
  /// `one_pack`: a bin holds what fits together; else anything. Bins are empty.
  IdleBins(const FreeModel& model, const Lanes& bins, std::span<const double> end_s, bool one_pack);

  /// Whether there are few enough speeds.
  static bool suits(const Lanes& bins);

  int find(const FreeItem& item) const;  ///< -1: none holds it
  void put(int bin, const FreeItem& item, double end_s);

 private:
  using Entry = std::pair<double, int>;  // end and bin
  /// Bins of one speed.
  struct Kind {
    double speed = 1.0;
    std::set<Entry> by_end = {};
    std::vector<std::set<Entry>> by_room = {};  // by level of the room left in them
    std::vector<Entry> first = {};              // tree over the levels: the first entry of each half
  };
  struct Bin {
    std::size_t kind = 0;
    double end_s = 0.0;
    double tokens = 0.0;
    double patches = 0.0;
  };
  static std::size_t at(std::int64_t value) { return static_cast<std::size_t>(value); }

  double used(double tokens, double patches) const;
  std::size_t level_of(double room) const;
  bool holds(int bin, const FreeItem& item) const;
  void insert(int bin);
  void erase(int bin);
  void renew(Kind& kind, std::size_t level) const;
  Entry first_in(const Kind& kind, const FreeItem& item) const;
  Entry first_of_all(const Kind& kind, const FreeItem& item) const;

  const FreeModel& model_;
  bool one_pack_;
  std::vector<Kind> kinds_;
  std::vector<Bin> bins_;
};

}  // namespace dhp
