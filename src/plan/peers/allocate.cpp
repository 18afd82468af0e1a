#include "plan/peers/allocate.h"

#include <algorithm>
#include <utility>

namespace dhp::plan {
namespace {

struct Entry {
  double seconds = 0.0;
  int bin = 0;
};

/// Heap order: slowest on top, the lower bin first among equals.
bool below(const Entry& a, const Entry& b) { return a.seconds != b.seconds ? a.seconds < b.seconds : a.bin > b.bin; }

/// The smallest degree in (from, limit] that is quicker than `seconds_now`.
std::optional<std::pair<int, double>> next_useful(int bin, int from, int limit, double seconds_now,
                                                  const SecondsOf& seconds) {
  for (int degree = from + 1; degree <= limit; ++degree) {
    const double at_degree = seconds(bin, degree);
    if (at_degree < seconds_now) return std::pair(degree, at_degree);
  }
  return std::nullopt;
}

}  // namespace

std::optional<Allocation> allocate_degrees(std::span<const DegreeLimits> bins, int ranks, const SecondsOf& seconds) {
  Allocation result;
  std::vector<Entry> heap;
  result.degrees.reserve(bins.size());
  heap.reserve(bins.size());
  int left = ranks;
  for (const DegreeLimits& limits : bins) {
    left -= limits.min;
    if (left < 0) return std::nullopt;
    const int bin = static_cast<int>(result.degrees.size());
    result.degrees.push_back(limits.min);
    heap.push_back({seconds(bin, limits.min), bin});
  }
  if (heap.empty()) return result;
  std::make_heap(heap.begin(), heap.end(), below);
  while (true) {
    const Entry worst = heap.front();
    int& degree = result.degrees[static_cast<std::size_t>(worst.bin)];
    const int limit = std::min(bins[static_cast<std::size_t>(worst.bin)].max, degree + left);
    const auto raised = next_useful(worst.bin, degree, limit, worst.seconds, seconds);
    if (!raised) break;
    left -= raised->first - degree;
    degree = raised->first;
    std::pop_heap(heap.begin(), heap.end(), below);
    heap.back().seconds = raised->second;
    std::push_heap(heap.begin(), heap.end(), below);
  }
  result.slowest_s = heap.front().seconds;
  return result;
}

}  // namespace dhp::plan
