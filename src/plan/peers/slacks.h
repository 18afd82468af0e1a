#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/index.h"

namespace dhp::plan {

/// Capacity left, in bytes, and the bin that has it.
using Slack = std::pair<double, std::int32_t>;

/// Slacks, ascending, the older bin first among equals: sorted runs of a few cache lines, found by the last slack of
/// each. A tree of 65,536 bins misses the cache at most levels; here all that is searched but the run itself stays in
/// it. Storage is used again after clear().
class Slacks {
 public:
  /// Of a slack; any change of the set makes it void.
  struct Place {
    std::size_t run = 0;  ///< in the order of their slacks
    std::size_t at = 0;   ///< within the run
  };

  void clear() { lasts_.clear(); }
  bool empty() const { return lasts_.empty(); }
  const Slack& largest() const { return lasts_.back(); }  ///< of a set that is not empty

  bool is_end(Place place) const { return place.run == lasts_.size(); }
  const Slack& operator[](Place place) const { return run(place.run).slacks[place.at]; }
  /// The first slack of at least so many bytes, or the end.
  Place at_least(double bytes) const {
    const auto below = [](const Slack& slack, double least) { return slack.first < least; };
    const std::size_t number = index(std::lower_bound(lasts_.begin(), lasts_.end(), bytes, below) - lasts_.begin());
    if (number == lasts_.size()) return {number, 0};
    const std::span<const Slack> slacks = run(number).all();
    return {number, index(std::lower_bound(slacks.begin(), slacks.end(), bytes, below) - slacks.begin())};
  }
  Place next(Place place) const {
    return place.at + 1 < run(place.run).size ? Place{place.run, place.at + 1} : Place{place.run + 1, 0};
  }

  void insert(Slack slack);
  void remove(Place place);

 private:
  struct Run {
    static constexpr std::size_t kMost = 64;
    std::array<Slack, kMost> slacks;
    std::size_t size = 0;

    std::span<const Slack> all() const { return std::span(slacks).first(size); }
  };

  const Run& run(std::size_t number) const { return runs_[order_[number]]; }
  Run& run(std::size_t number) { return runs_[order_[number]]; }
  /// An empty run before the others from `number` on.
  void open_run(std::size_t number);
  void split(std::size_t number);

  std::vector<Run> runs_;           // used or not, in any order
  std::vector<std::size_t> order_;  // of runs_: as many as lasts_ are used, ascending; the rest are not
  std::vector<Slack> lasts_;        // of each used run
};

}  // namespace dhp::plan
