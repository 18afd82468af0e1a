#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

namespace dhp::plan {

/// Degrees a bin may have.
struct DegreeLimits {
  int min = 1;
  int max = 1;  ///< at least min
};

/// Seconds of a bin at a degree within its limits. Need not fall with the degree.
using SecondsOf = std::function<double(int bin, int degree)>;

struct Allocation {
  std::vector<int> degrees;  ///< one a bin; they sum to at most the ranks given
  double slowest_s = 0.0;    ///< 0 without bins
};

/// Deals ranks to bins that run at once so that the slowest bin is as quick as possible: an exact minimum. Ranks that
/// help nobody stay idle. Empty if the minimum degrees alone exceed `ranks`.
///
/// Every bin begins with its minimum degree. The slowest bin is raised to its next *useful* degree, the smallest one at
/// which it is quicker than at every degree below, until it has none or the ranks do not suffice. Every raise is forced
/// (any allocation with a smaller maximum makes it too), which is why the result is exact.
/// O((bins + ranks) log bins), and one call of `seconds` per degree looked at.
std::optional<Allocation> allocate_degrees(std::span<const DegreeLimits> bins, int ranks, const SecondsOf& seconds);

}  // namespace dhp::plan
